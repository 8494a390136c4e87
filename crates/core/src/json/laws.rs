//! Laws of the gate, checked against `serde_json` on made and damaged texts.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

/// JSON with odd white space and escapes; names may repeat.
fn texts() -> impl Strategy<Value = String> {
    let blank = prop::sample::select(vec!["", " ", "\n", "\t \r"]);
    let string =
        prop_oneof!["\"[a-c]{0,2}\"", "\"([a-zä😀/]|\\\\u00e4|\\\\n|\\\\u006[1-3]|\\\\ud83d\\\\ude00){0,12}\""];
    let leaf =
        prop_oneof!["(null|true|false)", "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?", string.clone()];
    leaf.prop_recursive(6, 64, 24, move |inner| {
        let padded =
            (blank.clone(), inner, blank.clone()).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member = (string.clone(), padded.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
        prop_oneof![
            prop::collection::vec(padded, 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec(member, 0..24).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// A value that refuses duplicate names, to tell them from the gate's other refusals.
fn has_duplicates(text: &str) -> bool {
    fn members(raw: &RawValue) -> bool {
        let pairs: Result<Pairs<'_>, _> = serde_json::from_str(raw.get());
        if let Ok(Pairs(pairs)) = pairs {
            let names: BTreeSet<&String> = pairs.iter().map(|(name, _)| name).collect();
            return names.len() < pairs.len() || pairs.iter().any(|(_, value)| members(value));
        }
        let elements: Result<Vec<&RawValue>, _> = serde_json::from_str(raw.get());
        elements.is_ok_and(|elements| elements.iter().any(|element| members(element)))
    }
    serde_json::from_str(text).is_ok_and(members)
}

struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> serde::de::Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Collect).map(Pairs)
    }
}

/// Law: the gate and `serde_json` agree, but for duplicate names, depth and numbers beyond a double.
fn agrees_with_serde(text: &[u8]) -> Result<(), TestCaseError> {
    let ours = check(text, &Limits::default());
    let theirs = serde_json::from_slice::<Value>(text);
    match (&ours, &theirs) {
        (Ok(()), Err(error)) => {
            prop_assert!(error.to_string().contains("number out of range"), "we accept, they refuse: {error}");
        }
        (Err(error), Ok(_)) if error.fault == Fault::DuplicateKey => {
            prop_assert!(has_duplicates(str::from_utf8(text).unwrap()), "no duplicate: {error}");
        }
        (Err(error), Ok(_)) => prop_assert!(error.fault == Fault::TooDeep, "we refuse, they accept: {error}"),
        (Ok(()), Ok(_)) => prop_assert!(!has_duplicates(str::from_utf8(text).unwrap()), "a duplicate passed"),
        (Err(_), Err(_)) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_gate_agrees_with_serde_json(text in texts()) {
        agrees_with_serde(text.as_bytes())?;
    }

    #[test]
    fn the_gate_agrees_with_serde_json_on_damaged_texts(
        text in texts(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(br#""\{}[]:,0-.eEutfn"#.to_vec())]), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = text.into_bytes();
        for (place, byte) in damage {
            let at = place.index(text.len());
            text[at] = byte;
        }
        agrees_with_serde(&text)?;
        agrees_with_serde(&text[..cut.index(text.len())])?;
    }

    #[test]
    fn no_bytes_make_anything_panic(a: Vec<u8>, b: Vec<u8>) {
        let _ = (check(&a, &Limits::default()), equal(&a, &b), compact(&a), unquote(&a), agrees_with_serde(&a));
    }

    #[test]
    fn equal_agrees_with_serde_json_but_for_the_spelling_of_numbers(a in texts(), b in texts()) {
        let values = (serde_json::from_str::<Value>(&a).unwrap(), serde_json::from_str::<Value>(&b).unwrap());
        let [Ok(()), Ok(())] = [&a, &b].map(|text| check(text.as_bytes(), &Limits::default())) else { return Ok(()) };
        if equal(a.as_bytes(), b.as_bytes()) {
            prop_assert_eq!(&values.0, &values.1);
        }
        // Written anew and in another order it is still the same, if it has no numbers.
        if !a.contains(|letter: char| letter.is_ascii_digit()) {
            prop_assert!(equal(a.as_bytes(), reversed(&values.0).to_string().as_bytes()));
        }
    }

    #[test]
    fn what_is_compacted_says_the_same_on_one_line(text in texts()) {
        let short = compact(text.as_bytes());
        prop_assert!(!short.contains(&b'\n') && !short.contains(&b'\r'));
        prop_assert_eq!(serde_json::from_slice::<Value>(&short).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn quoted_text_is_read_back_by_us_and_by_serde_json(text: String) {
        let mut quoted = Vec::new();
        quote(&mut quoted, &text);
        prop_assert_eq!(unquote(&quoted).unwrap(), &*text);
        prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), &*text);
    }
}

fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(reversed).collect()),
        other => other.clone(),
    }
}
