"""What the suite, written for Python 2, takes texts and bytes for: one and the same. Imported before its cases."""
import binascii
import json

from autobahn.websocket import protocol, utf8validator


def L(value):
    """Bytes, whatever it is."""
    return value.encode("latin-1") if isinstance(value, str) else value


def U(value):
    """A text, whatever it is."""
    return bytes(value).decode("latin-1") if isinstance(value, (bytes, bytearray)) else value


def taking_texts(name, place, keyword):
    """Has a method take texts for bytes."""
    method = getattr(protocol.WebSocketProtocol, name)

    def wrapped(self, *arguments, **named):
        arguments = list(arguments)
        if len(arguments) > place:
            arguments[place] = L(arguments[place])
        if keyword in named:
            named[keyword] = L(named[keyword])
        return method(self, *arguments, **named)

    setattr(protocol.WebSocketProtocol, name, wrapped)


for name, place, keyword in [
    ("sendFrame", 1, "payload"),
    ("sendMessage", 0, "payload"),
    ("sendPing", 0, "payload"),
    ("sendPong", 0, "payload"),
    ("sendCloseFrame", 1, "reasonUtf8"),
    ("sendData", 0, "data"),
    ("sendMessageFrameData", 0, "payload"),
    ("sendMessageFrame", 0, "payload"),
]:
    taking_texts(name, place, keyword)

validate = utf8validator.Utf8Validator.validate
utf8validator.Utf8Validator.validate = lambda self, data: validate(self, L(data))
hexlify = binascii.b2a_hex
binascii.b2a_hex = lambda data, *more: hexlify(L(data), *more).decode()
dumps = json.dumps
plain = lambda value: U(value) if isinstance(value, (bytes, bytearray)) else repr(value)
json.dumps = lambda value, **named: dumps(value, **{**named, "default": plain})
