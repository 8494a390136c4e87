"""Runs Autobahn's cases 1 to 7 and 10 against a server that sends back what it gets, and ends with `N passed, N failed`.

    fuzz.py ws://127.0.0.1:9001 FOLDER

Cases 9 are about sizes that Tidings does not take, 12 and 13 about compression, which it does not take up.
"""
import json
import pathlib
import sys

url, folder = sys.argv[1], sys.argv[2]
sys.argv = ["wstest"]
from autobahntestsuite import choosereactor  # noqa: E402, F401 (has to be the first)
from autobahntestsuite import fuzzing  # noqa: E402
from twisted.internet import reactor  # noqa: E402

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
# So many there are: a run that ends early is no success.
COUNT = 247
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}

servers = [{"agent": "tidings", "url": url}]
spec = {"outdir": folder, "servers": servers, "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {}}
fuzzing.startClient(spec)
reactor.run()
found = json.loads((pathlib.Path(folder) / "index.json").read_text())["tidings"]
failed = {case: told for case, told in found.items() if not {told["behavior"], told["behaviorClose"]} <= GOOD}
for case, told in failed.items():
    print(f"FAILED  {case}: {told['behavior']}, closed {told['behaviorClose']} (code {told['remoteCloseCode']})")
strict = sum(told["behavior"] == "OK" for told in found.values())
print(f"{len(found)} cases, {strict} of them OK in the strict sense")
missing = COUNT - len(found)
print(f"{len(found) - len(failed)} passed, {len(failed) + missing} failed")
sys.exit(1 if failed or missing else 0)
