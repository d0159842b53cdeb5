use proptest::prelude::*;
use serde_json::{Value, json};

use super::collation::{collate, same};
use super::*;

fn selector(value: Value) -> Selector {
    Selector::parse(&value).unwrap()
}

#[track_caller]
fn check(selector_value: Value, matching: &[Value], others: &[Value]) {
    let selector = selector(selector_value);
    for (documents, expected) in [(matching, true), (others, false)] {
        for document in documents {
            assert_eq!(selector.matches(document), expected, "{selector:?} on {document}");
            let text = selector.matches_text(document.to_string().as_bytes()).unwrap();
            assert_eq!(text, expected, "{selector:?} on the text of {document}");
        }
    }
}

fn error(value: Value) -> String {
    Selector::parse(&value).unwrap_err().to_string()
}

#[test]
fn values_are_ordered_across_types() {
    let ordered = [
        json!(null),
        json!(false),
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(""),
        json!("a"),
        json!("A"),
        json!("aa"),
        json!("b"),
        json!("Z"),
        json!([]),
        json!([null]),
        json!(["a"]),
        json!(["a", 1]),
        json!(["b"]),
        json!({}),
        json!({"a": 1}),
        json!({"a": 2}),
        json!({"a": 2, "b": 1}),
        json!({"b": 1}),
        json!({"b": 1, "a": 1}),
    ];
    for (i, a) in ordered.iter().enumerate() {
        for (j, b) in ordered.iter().enumerate() {
            assert_eq!(collate(a, b), i.cmp(&j), "{a} and {b}");
        }
    }
}

#[test]
fn strings_are_ordered_as_by_icus_root_collation() {
    // As in CouchDB's own tests of view collation.
    let ordered = ["a", "A", "aa", "b", "B", "ba", "bb"].map(Value::from);
    for pair in ordered.windows(2) {
        assert!(collate(&pair[0], &pair[1]).is_lt(), "{pair:?}");
    }
    assert!(collate(&json!("résumé"), &json!("resume")).is_gt());
    assert!(collate(&json!("résumé"), &json!("resumes")).is_lt());
    assert!(collate(&json!("Zoë"), &json!("Zoe\u{308}")).is_eq());
}

#[test]
fn numbers_are_compared_by_value_however_they_are_written() {
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let order = |a, b| collate(&number(a), &number(b));
    for (a, b) in [("1", "1.0"), ("100", "1e2"), ("-0", "0.00"), ("0.001", "1E-3"), ("12e-1", "1.20")] {
        assert!(order(a, b).is_eq(), "{a} and {b}");
    }
    for (a, b) in [
        ("12345678901234567890122", "12345678901234567890123"),
        ("-12345678901234567890123", "-12345678901234567890122"),
        ("9007199254740992", "9007199254740993.0"),
        ("-1e400", "-1"),
        ("1", "1e400"),
        ("1e99999999999999999999", "2e99999999999999999999"),
        ("1e-99999999999999999999", "1e-5"),
        ("-0.1", "0"),
        ("0", "0.1"),
    ] {
        assert!(order(a, b).is_lt() && order(b, a).is_gt(), "{a} and {b}");
    }
    assert!(!same(&number("1"), &number("1.0")) && same(&number("1.50"), &number("1.5")));
}

#[test]
fn comparisons_order_across_types() {
    check(
        json!({"a": {"$lt": 2}}),
        &[json!({"a": 1}), json!({"a": null})],
        &[json!({"a": 2}), json!({"a": "1"}), json!({})],
    );
    check(json!({"a": {"$lte": 2}}), &[json!({"a": 2}), json!({"a": 2.0})], &[json!({"a": 3})]);
    check(json!({"a": {"$gt": "a"}}), &[json!({"a": "b"}), json!({"a": []})], &[json!({"a": "a"}), json!({"a": 9})]);
    check(json!({"a": {"$gte": 2}}), &[json!({"a": 2}), json!({"a": {}})], &[json!({"a": true})]);
    check(json!({"a": 1}), &[json!({"a": 1, "b": 2}), json!({"a": 1.0})], &[json!({"a": [1]}), json!({"b": 1})]);
    check(json!({"a": {"$ne": 1}}), &[json!({"a": 2})], &[json!({"a": 1}), json!({})]);
    check(json!({"a": {}}), &[json!({"a": {}})], &[json!({"a": {"b": 1}}), json!({})]);
    check(json!({"a": [1, 2]}), &[json!({"a": [1, 2]})], &[json!({"a": [2, 1]})]);
}

#[test]
fn presence_and_type_are_seen() {
    check(json!({"a": {"$exists": true}}), &[json!({"a": null})], &[json!({})]);
    check(json!({"a": {"$exists": false}}), &[json!({"b": 1})], &[json!({"a": null})]);
    // CouchDB's: a path through something without members is neither there nor absent.
    check(json!({"a.b": {"$exists": false}}), &[json!({"a": {}}), json!({})], &[json!({"a": 1})]);
    for (name, value) in [
        ("null", json!(null)),
        ("boolean", json!(true)),
        ("number", json!(1.5)),
        ("string", json!("")),
        ("array", json!([])),
        ("object", json!({})),
    ] {
        check(
            json!({"a": {"$type": name}}),
            &[json!({"a": value})],
            &[json!({"a": if name == "null" { json!(0) } else { json!(null) }})],
        );
    }
}

#[test]
fn lists_hold_values_or_items() {
    check(
        json!({"a": {"$in": [1, "x"]}}),
        &[json!({"a": 1}), json!({"a": ["y", "x"]})],
        &[json!({"a": 2}), json!({"a": []}), json!({})],
    );
    check(
        json!({"a": {"$nin": [1, "x"]}}),
        &[json!({"a": 2}), json!({"a": ["y"]})],
        &[json!({"a": 1}), json!({"a": ["x"]}), json!({})],
    );
    check(
        json!({"a": {"$all": [1, 2]}}),
        &[json!({"a": [3, 2, 1]})],
        &[json!({"a": [1]}), json!({"a": 1}), json!({"a": [1.0, 2]})],
    );
    check(
        json!({"a": {"$all": [[1, 2]]}}),
        &[json!({"a": [1, 2]}), json!({"a": [[1, 2], 3]})],
        &[json!({"a": [1, 2, 3]})],
    );
    check(json!({"a": {"$size": 2}}), &[json!({"a": [1, 2]})], &[json!({"a": [1]}), json!({"a": "ab"})]);
}

#[test]
fn empty_lists_mean_what_they_mean_to_couchdb() {
    let document = [json!({"a": 1})];
    for open in
        [json!({}), json!({"$and": []}), json!({"$or": []}), json!({"a": {"$nin": []}}), json!({"a": 1, "$or": []})]
    {
        check(open, &document, &[]);
    }
    for closed in [json!({"a": {"$in": []}}), json!({"a": {"$all": []}}), json!({"$or": [], "a": {"$in": []}})] {
        check(closed, &[], &document);
    }
}

#[test]
fn integers_have_remainders_of_their_own_sign() {
    let big: Value = serde_json::from_str(r#"{"a":123456789012345678901234567893}"#).unwrap();
    check(
        json!({"a": {"$mod": [10, 3]}}),
        &[json!({"a": 13}), big],
        &[json!({"a": -13}), json!({"a": 13.0}), json!({"a": "13"})],
    );
    check(json!({"a": {"$mod": [-10, -3]}}), &[json!({"a": -13})], &[json!({"a": 13})]);
}

#[test]
fn texts_are_searched() {
    check(json!({"a": {"$regex": "^[0-9]+(?!x)$"}}), &[json!({"a": "12"})], &[json!({"a": "1a"}), json!({"a": 12})]);
    // A search that would take for ever finds nothing.
    check(json!({"a": {"$regex": "^(a+)+\\1$"}}), &[], &[json!({"a": format!("{}b", "a".repeat(64))})]);
    check(json!({"a": {"$beginsWith": "ab"}}), &[json!({"a": "abc"})], &[json!({"a": "Ab"}), json!({"a": ["ab"]})]);
}

#[test]
fn items_and_keys_are_matched() {
    let in_range = json!({"a": {"$elemMatch": {"$gte": 80, "$lt": 85}}});
    check(in_range, &[json!({"a": [1, 82]})], &[json!({"a": [79, 85]}), json!({"a": 82}), json!({"a": []})]);
    let friends = json!({"f": {"$elemMatch": {"id": {"$gte": 3}, "name.first": "Z"}}});
    check(
        friends,
        &[json!({"f": [{"id": 4, "name": {"first": "Z"}}]})],
        &[json!({"f": [{"id": 4}, {"name": {"first": "Z"}}, 5]})],
    );
    check(
        json!({"a": {"$allMatch": {"$eq": 1}}}),
        &[json!({"a": [1, 1.0]})],
        &[json!({"a": [1, 2]}), json!({"a": []}), json!({"a": 1})],
    );
    check(
        json!({"a": {"$keyMapMatch": {"$eq": "k"}}}),
        &[json!({"a": {"j": 1, "k": 2}})],
        &[json!({"a": {"j": "k"}}), json!({"a": ["k"]})],
    );
    check(
        json!({"a": {"$elemMatch": {"$nor": [{"$eq": 1}, {"$eq": 2}]}}}),
        &[json!({"a": [1, 3]})],
        &[json!({"a": [1, 2]})],
    );
}

#[test]
fn combinations_combine() {
    check(json!({"a": 1, "b": 2}), &[json!({"a": 1, "b": 2})], &[json!({"a": 1})]);
    check(json!({"$or": [{"a": 1}, {"b": 2}]}), &[json!({"a": 1}), json!({"b": 2})], &[json!({"a": 2})]);
    check(json!({"$nor": [{"a": 1}, {"a": 2}]}), &[json!({"a": 3})], &[json!({"a": 1}), json!({})]);
    check(
        json!({"$not": {"a": {"$gt": 1, "$lt": 5}}}),
        &[json!({"a": 1}), json!({"a": 5})],
        &[json!({"a": 3}), json!({})],
    );
    check(
        json!({"a": {"$not": {"$regex": "x"}}}),
        &[json!({"a": "y"}), json!({"a": 1})],
        &[json!({"a": "x"}), json!({})],
    );
}

#[test]
fn fields_are_dotted_nested_indexed_or_escaped() {
    check(json!({"a.b": 1}), &[json!({"a": {"b": 1}})], &[json!({"a.b": 1}), json!({"a": 1})]);
    check(json!({"a": {"b": {"c": 1}}}), &[json!({"a": {"b": {"c": 1, "d": 2}}})], &[json!({"a": {"b": {}}})]);
    check(json!({"a\\.b.c": 1}), &[json!({"a.b": {"c": 1}})], &[json!({"a": {"b": {"c": 1}}})]);
    check(json!({"a.1": "y"}), &[json!({"a": ["x", "y"]}), json!({"a": {"1": "y"}})], &[json!({"a": ["y"]})]);
}

#[test]
fn ids_are_compared_by_their_bytes() {
    check(json!({"_id": {"$gt": "a"}}), &[json!({"_id": "b"})], &[json!({"_id": "B"})]);
    check(json!({"_id": {"$gt": null}}), &[json!({"_id": "a"})], &[]);
    check(json!({"name": {"$gt": "a"}}), &[json!({"name": "B"})], &[json!({"name": "`"})]);
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(error(json!([])), "a selector must be a JSON object");
    assert_eq!(error(json!({"a": {"$nope": 1}})), "invalid operator: $nope");
    assert_eq!(error(json!({"$text": "x"})), "unsupported operator: $text");
    for (operator, bad) in [
        ("$and", json!({})),
        ("$or", json!(1)),
        ("$nor", json!("x")),
        ("$not", json!([])),
        ("$in", json!(1)),
        ("$nin", json!({})),
        ("$all", json!(null)),
        ("$exists", json!(1)),
        ("$type", json!(1)),
        ("$size", json!(-1)),
        ("$size", json!(1.5)),
        ("$mod", json!([0, 1])),
        ("$mod", json!([1.5, 1])),
        ("$mod", json!([1])),
        ("$regex", json!("(")),
        ("$beginsWith", json!(1)),
        ("$elemMatch", json!([])),
        ("$allMatch", json!(1)),
        ("$keyMapMatch", json!("a")),
    ] {
        let told = error(json!({"a": {operator: bad}}));
        assert!(told.starts_with(&format!("bad argument for operator {operator}: ")), "{told}");
    }
    assert_eq!(error(json!({"$gt": 1})), "a condition names no field");
    assert_eq!(error(json!({"a..b": 1})), "invalid field name: a..b");
}

#[test]
fn the_normalised_form_is_couchdbs() {
    for (written, normalised) in [
        (json!({}), json!({})),
        (json!({"a": 1}), json!({"a": {"$eq": 1}})),
        (
            json!({"b": {"$gt": 1, "$lt": 5}, "a": {"z": 1}}),
            json!({"$and": [
            {"$and": [{"b": {"$gt": 1}}, {"b": {"$lt": 5}}]}, {"a.z": {"$eq": 1}}]}),
        ),
        (json!({"a": {"$and": [{"$gt": 5}, {"b": 1}]}}), json!({"$and": [{"a": {"$gt": 5}}, {"a.b": {"$eq": 1}}]})),
        (
            json!({"$not": {"$and": [{"a": {"$gt": 1}}, {"b": {"$in": [1]}}]}}),
            json!({"$or": [{"a": {"$lte": 1}}, {"b": {"$nin": [1]}}]}),
        ),
        (
            json!({"$nor": [{"a": {"$exists": true}}, {"b": {"$type": "x"}}]}),
            json!({"$and": [{"a": {"$exists": false}}, {"b": {"$not": {"$type": "x"}}}]}),
        ),
        (
            json!({"a": {"$elemMatch": {"$gt": 1, "x": {"$not": {"$eq": 2}}}}}),
            json!({"a": {"$elemMatch": {"$and": [{"": {"$gt": 1}}, {"$not": {"x": {"$eq": 2}}}]}}}),
        ),
    ] {
        assert_eq!(selector(written.clone()).normalised(), normalised, "{written}");
    }
    let text = selector(json!({"a": {"$eq": {"z": 1, "b": {"y": 1, "x": 2}}}})).normalised().to_string();
    assert_eq!(text, r#"{"a":{"$eq":{"b":{"x":2,"y":1},"z":1}}}"#);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-100.0..100.0).prop_map(Value::from),
        "[a-cA-Cé]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn the_order_is_total(a in any_value(), b in any_value(), c in any_value()) {
        prop_assert_eq!(collate(&a, &b), collate(&b, &a).reverse());
        let mut all = [a, b, c];
        all.sort_by(collate);
        prop_assert!(collate(&all[0], &all[2]).is_le());
        prop_assert!(collate(&all[0], &all[0]).is_eq());
    }

    #[test]
    fn a_present_field_meets_a_condition_or_its_negation(value in any_value(), argument in any_value()) {
        for operator in ["$lt", "$lte", "$eq", "$ne", "$gt", "$gte"] {
            let condition = json!({"a": {operator: argument.clone()}});
            let document = json!({"a": value.clone()});
            let negated = selector(json!({"$not": condition.clone()}));
            prop_assert_ne!(selector(condition).matches(&document), negated.matches(&document));
        }
    }
}
