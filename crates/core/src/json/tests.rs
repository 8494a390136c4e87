//! Cases of the gate.

use super::*;

fn fault(text: &[u8]) -> Option<(Fault, String)> {
    check(text, &Limits::default()).err().map(|error| (error.fault, error.pointer))
}

#[test]
fn every_kind_of_value_passes() {
    let cases = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12",
        "-1.5e+10",
        "1E5",
        "0.0",
        "\"\"",
        "[]",
        "{}",
        " [ 1 , 2 ] ",
        "\t{\"a\" : {\"a\":[{}]}}\r\n",
        r#""\"\\\/\b\f\n\r\t\u0041\u00e4\uD83D\uDE00\u0000""#,
        "\"äöü 😀 \u{7f}\u{2028}\"",
        "123456789012345678901234567890.123e99999",
        r#"{"a":1,"b":{"a":2},"A":3,"":4}"#,
    ];
    for text in cases {
        assert_eq!(check(text.as_bytes(), &Limits::default()), Ok(()), "{text}");
    }
}

#[test]
fn what_is_not_json_is_malformed() {
    let cases = [
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "+1",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "--1",
        "1 2",
        "'a'",
        "\"a",
        "\"\\",
        "\"\\u12",
        r#""\x""#,
        r#""\u12g4""#,
        r#""\U0041""#,
        "\"a\nb\"",
        "\"a\tb\"",
        "\"\0\"",
        "[",
        "]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:2}",
        "{\"a\":1 \"b\":2}",
        "[1}",
        "{\"a\":1]",
        "// a\n1",
        "[1]]",
        "\u{feff}1",
        "\u{a0}1",
        "1\u{c}",
        "\0",
    ];
    for text in cases {
        assert_eq!(fault(text.as_bytes()).map(|(fault, _)| fault), Some(Fault::Malformed), "{text}");
    }
}

#[test]
fn half_of_a_surrogate_pair_is_malformed() {
    for text in [
        r#""\uD800""#,
        r#""\uDC00""#,
        r#""\uD83D\u0041""#,
        r#""\uD83Dx""#,
        r#""\uDE00\uD83D""#,
        r#""\uD83D\uD83D""#,
        r#""\uDE00\uDE00""#,
        r#"{"\uDFFF":1}"#,
    ] {
        let error = check(text.as_bytes(), &Limits::default()).unwrap_err();
        assert!(error.fault == Fault::Malformed && error.message.contains("surrogate"), "{text}: {}", error.message);
    }
}

#[test]
fn a_byte_order_mark_is_named() {
    let error = check(b"\xEF\xBB\xBF{}", &Limits::default()).unwrap_err();
    assert!(error.fault == Fault::Malformed && error.message.contains("byte order mark"));
}

#[test]
fn a_text_that_ends_too_early_says_so() {
    for text in ["", "{\"", "[1,", "{\"a\":", "\"abc", "{\"a\"", "-", "{\"a\":1"] {
        let error = check(text.as_bytes(), &Limits::default()).unwrap_err();
        assert!(error.message.starts_with("the text ends"), "{text}: {}", error.message);
        assert_eq!(error.at, text.len());
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_anywhere() {
    for text in [&b"\xff"[..], b"\"\xff\"", b"{\"a\":\"\xc3\"}", b"[1]\x80", b"\"\xed\xa0\x80\"", b"\"\xc0\xaf\""] {
        assert_eq!(fault(text).map(|(fault, _)| fault), Some(Fault::InvalidUtf8), "{text:?}");
    }
}

#[test]
fn a_name_given_twice_is_refused_at_every_depth_and_in_every_spelling() {
    let cases = [
        (r#"{"a":1,"a":2}"#, "/a"),
        (r#"{"a":1,"\u0061":2}"#, "/a"),
        (r#"{"\u0061":1,"a":2}"#, "/a"),
        (r#"{"\u0061":1,"\u0061":2}"#, "/a"),
        (r#"{"/":1,"\/":2}"#, "/~1"),
        (r#"{"ä":1,"\u00e4":2}"#, "/ä"),
        (r#"{"😀":1,"\ud83d\uDE00":2}"#, "/😀"),
        (r#"{"":1,"":2}"#, "/"),
        (r#"[0,{"x":{"a~b":[{"k":1,"k":1}]}}]"#, "/1/x/a~0b/0/k"),
        (r#"{"a":{"b":1},"c":{"b":1},"a":0}"#, "/a"),
    ];
    for (text, pointer) in cases {
        assert_eq!(fault(text.as_bytes()), Some((Fault::DuplicateKey, pointer.into())), "{text}");
    }
}

#[test]
fn large_objects_find_their_duplicates_too() {
    for count in [15, 16, 17, 18, 1000] {
        let names: Vec<String> = (0..count).map(|index| format!("\"k{index}\":0")).collect();
        assert_eq!(fault(format!("{{{}}}", names.join(",")).as_bytes()), None);
        for twice in [0, count / 2, count - 1] {
            let text = format!("{{{},\"k{twice}\":1}}", names.join(","));
            assert_eq!(fault(text.as_bytes()), Some((Fault::DuplicateKey, format!("/k{twice}"))));
        }
    }
}

#[test]
fn depth_and_names_end_where_the_limits_say() {
    let limits = Limits { depth_max: 3, keys_max: 4 };
    assert!(check(b"[[[1]]]", &limits).is_ok());
    assert!(check(b"[[[]],[[]],{\"a\":[]}]", &limits).is_ok());
    let error = check(b"[0,[[[1]]]]", &limits).unwrap_err();
    assert_eq!((error.fault, &*error.pointer, error.at), (Fault::TooDeep, "/1/0/0", 5));
    assert!(check(br#"{"a":{"a":1},"b":{"a":1}}"#, &limits).is_ok());
    let error = check(br#"[{"a":1,"b":1},{"a":1,"b":1,"c":1}]"#, &limits).unwrap_err();
    assert_eq!((error.fault, &*error.pointer), (Fault::TooManyKeys, "/1"));
}

#[test]
fn no_limit_lets_the_scanner_recurse_without_end() {
    let limits = Limits { depth_max: usize::MAX, keys_max: usize::MAX };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nest = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert!(check(nest(Limits::DEPTH_CEILING).as_bytes(), &limits).is_ok());
        assert_eq!(check(nest(100_000).as_bytes(), &limits).unwrap_err().fault, Fault::TooDeep);
        let deep = nest(Limits::DEPTH_CEILING);
        assert!(equal(deep.as_bytes(), format!(" {deep}").as_bytes()));
    }
}

#[test]
fn an_error_points_to_the_value_it_is_in() {
    let cases = [
        ("[1,2,x]", "/2", 5),
        (r#"{"a":{"b":[1,{"c":tru}]}}"#, "/a/b/1/c", 18),
        (r#"{"a":1,"b" 2}"#, "/b", 11),
        (r#"{"a":"x,]}\"","b":-}"#, "/b", 19),
        (r#"{"a":"\q"}"#, "/a", 6),
        ("", "", 0),
    ];
    for (text, pointer, at) in cases {
        let error = check(text.as_bytes(), &Limits::default()).unwrap_err();
        assert_eq!((&*error.pointer, error.at), (pointer, at), "{text}");
    }
    let long = format!("{{\"{}\":x}}", "k".repeat(100_000));
    assert!(fault(long.as_bytes()).unwrap().1.len() < 200);
}

#[test]
fn members_are_handed_out_raw_and_in_order() {
    let mut seen = Vec::new();
    let text = br#" { "a" : [1, 2] ,"\u0062":{"c":3} , "d":"x" } "#;
    object(text, &Limits::default(), |name, value| {
        seen.push((str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap()));
    })
    .unwrap();
    assert_eq!(seen, [("\"a\"", "[1, 2]"), ("\"\\u0062\"", "{\"c\":3}"), ("\"d\"", "\"x\"")]);
    for other in ["[]", "1", "{} {}", "{\"a\":1,\"a\":2}", ""] {
        assert!(object(other.as_bytes(), &Limits::default(), |_, _| {}).is_err(), "{other}");
    }
}

#[test]
fn elements_are_handed_out_raw_and_in_order() {
    let mut seen = Vec::new();
    array(b"[ {\"a\": 1} ,2, \"x\",[ ] ]", &Limits::default(), |element| seen.push(str::from_utf8(element).unwrap()))
        .unwrap();
    assert_eq!(seen, ["{\"a\": 1}", "2", "\"x\"", "[ ]"]);
    for other in ["{}", "1", "[] []", ""] {
        assert!(array(other.as_bytes(), &Limits::default(), |_| {}).is_err(), "{other}");
    }
}

#[test]
fn texts_that_say_the_same_are_equal() {
    let cases = [
        (r#"{"a":1,"b":[1,2]}"#, " { \"b\" : [1,2],\n\"a\":1 } ", true),
        (r#""a\/\u00e4""#, "\"a/ä\"", true),
        (r#"{"\u0061":1}"#, r#"{"a":1}"#, true),
        ("1", "1.0", false),
        ("1e2", "100", false),
        ("-0", "0", false),
        ("[1,2]", "[2,1]", false),
        ("[1]", "[1,1]", false),
        (r#"{"a":1}"#, r#"{"a":1,"b":null}"#, false),
        ("\"1\"", "1", false),
        ("null", "false", false),
        ("{}", "[]", false),
        ("\"null\"", "null", false),
        ("x", "x", true),
        ("x", " x", false),
        ("1", "1 1", false),
    ];
    for (a, b, same) in cases {
        assert_eq!(equal(a.as_bytes(), b.as_bytes()), same, "{a} {b}");
        assert_eq!(equal(b.as_bytes(), a.as_bytes()), same, "{b} {a}");
    }
}

#[test]
fn a_text_with_line_breaks_is_brought_onto_one_line() {
    let text = b"{\r\n\t\"a b\" : \"x \\\" \\n y\",\n  \"c\": [ 1, 2 ]\r}";
    assert_eq!(&*compact(text), br#"{"a b":"x \" \n y","c":[1,2]}"#);
    let one_line = b"{ \"a\": 1 }";
    assert!(matches!(compact(one_line), std::borrow::Cow::Borrowed(text) if text == one_line));
}

#[test]
fn only_one_whole_string_is_unquoted() {
    let cases = [
        (r#""""#, Some("")),
        (r#""a\"b\\\u00e4\n😀""#, Some("a\"b\\ä\n😀")),
        (r#""\ud83d\ude00""#, Some("😀")),
        ("\"", None),
        ("", None),
        ("a", None),
        ("\"a\"b\"", None),
        (r#""a\""#, None),
        ("\"a\nb\"", None),
        (r#""\ud83d""#, None),
        ("null", None),
        (" \"a\"", None),
    ];
    for (raw, text) in cases {
        assert_eq!(unquote(raw.as_bytes()).as_deref(), text, "{raw}");
    }
    assert_eq!(unquote(b"\"\xff\""), None);
}
