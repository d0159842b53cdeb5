//! What functions may do, and what becomes of those that do more.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;

const DESIGN: &str = r#"{"_id":"_design/d","lib":{
    "is":"var one = require('./one'); exports.even = function (n) { return n % 2 == 0 && one.value == 1; };",
    "one":"exports.value = 1;","broken":"exports.","up":"module.exports = require('../top');"},"top":"exports.t = 5"}"#;

fn code(source: &str, kind: Kind) -> Arc<Code> {
    Arc::new(Code { database: "db".into(), design: DESIGN.into(), source: source.into(), kind })
}

/// Interpreters with little time and memory, so that tests end soon.
fn interpreters() -> Interpreters {
    Interpreters::new(Javascript {
        call_time: Duration::from_millis(300),
        memory_bytes: 8 << 20,
        interpreters: 1,
        ..Javascript::default()
    })
}

async fn ask_all(interpreters: &Interpreters, code: Arc<Code>, docs: &[&str]) -> Result<Vec<bool>, ScriptError> {
    loop {
        let (admission, _guard) = interpreters.admit(code.clone(), r#"{"query":{"min":"3"}}"#.into()).await;
        let short = admission.is_short();
        let docs = docs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let asked = crate::tasks::blocking("ask", move || {
            let running = admission.start()?;
            let passing = docs.iter().map(|doc| running.passes(doc.as_bytes())).collect::<Result<Vec<_>, _>>()?;
            running.finish();
            Ok(passing)
        });
        match asked.await.unwrap() {
            Err(error) if short && worth_another_try(&error) => {}
            asked => return asked,
        }
    }
}

async fn ask(source: &str, doc: &str) -> Result<bool, ScriptError> {
    Ok(ask_all(&interpreters(), code(source, Kind::Filter), &[doc]).await?[0])
}

async fn error(source: &str) -> (String, String) {
    let ScriptError { error, reason } = ask(source, "{}").await.unwrap_err();
    (error, reason)
}

#[tokio::test]
async fn a_filter_passes_what_it_returns_as_true() {
    let filter = code("function (doc, req) { return doc.n >= req.query.min; };\n", Kind::Filter);
    let docs = [r#"{"n":2}"#, r#"{"n":3}"#, "{}"];
    assert_eq!(ask_all(&interpreters(), filter, &docs).await.unwrap(), [false, true, false]);
    assert!(ask("function (doc) { return 'yes' } // so it does", "{}").await.unwrap());
}

#[tokio::test]
async fn a_map_passes_what_it_emits_something_for() {
    let map = code("function (doc) { if (isArray(doc.tags)) emit(sum(doc.tags), null) }", Kind::Map);
    let docs = [r#"{"tags":[1]}"#, r#"{"tags":1}"#, r#"{"tags":[]}"#];
    assert_eq!(ask_all(&interpreters(), map, &docs).await.unwrap(), [true, false, true]);
}

async fn judged(source: &str, edit: &str) -> Result<(), (String, String)> {
    let (interpreters, validation) = (interpreters(), code(source, Kind::Validation));
    loop {
        let (admission, _guard) =
            interpreters.admit(validation.clone(), r#"[{"name":"ann","roles":[]},{"s":1}]"#.into()).await;
        let (short, edit) = (admission.is_short(), edit.to_owned());
        let asked = crate::tasks::blocking("ask", move || admission.start()?.passes(edit.as_bytes())).await.unwrap();
        match asked {
            Err(error) if short && worth_another_try(&error) => {}
            Err(ScriptError { error, reason }) => return Err((error, reason)),
            Ok(passes) => {
                assert!(passes);
                return Ok(());
            }
        }
    }
}

#[tokio::test]
async fn a_validation_passes_what_it_does_not_throw_for() {
    let validation = "function (newDoc, oldDoc, userCtx, secObj) {
        if (newDoc.n < (oldDoc ? oldDoc.n : 0)) throw {forbidden: userCtx.name + secObj.s + typeof require('lib/is') };
        return false }";
    judged(validation, r#"[{"n":1},null]"#).await.unwrap();
    judged(validation, r#"[{"n":1},{"n":1}]"#).await.unwrap();
    let thrown = judged(validation, r#"[{"n":1},{"n":2}]"#).await.unwrap_err();
    assert_eq!(thrown, ("forbidden".into(), "ann1object".into()));
}

/// What CouchDB 3.5.0 answers; but for `1` and `true`, which pass there, and what is no text, which it gives as JSON.
#[tokio::test]
async fn whatever_a_validation_throws_refuses() {
    for (thrown, error, reason) in [
        ("{unauthorized: 'no'}", "unauthorized", "no"),
        ("{forbidden: ''}", "forbidden", ""),
        ("{forbidden: {a: [1]}}", "forbidden", r#"{"a":[1]}"#),
        ("'text'", "unknown_error", "text"),
        ("{a: 'x'}", "unknown_error", "x"),
        ("1", "unknown_error", "1"),
        ("{}", "unknown_error", "{}"),
        ("['error', 'foo', 'bar']", "foo", "bar"),
        ("new Error('e')", "Error", "e"),
        ("nowhere.x", "ReferenceError", "nowhere is not defined"),
    ] {
        let thrown = judged(&format!("function () {{ throw {thrown} }}"), "[{},null]").await.unwrap_err();
        assert_eq!(thrown, (error.into(), reason.into()));
    }
    assert_eq!(judged("function () { for (;;) {} }", "[{},null]").await.unwrap_err().0, "os_process_error");
    assert_eq!(judged("function (", "[{},null]").await.unwrap_err().0, "compilation_error");
    let hoard = "function () { 'x'.repeat(1e8) }";
    assert_eq!(judged(hoard, "[{},null]").await.unwrap_err().0, "InternalError");
}

/// A function that makes its caller an admin would do so for whoever comes next.
#[tokio::test]
async fn what_a_validation_does_to_its_arguments_ends_with_the_call() {
    let interpreters = interpreters();
    let promoting = "function (newDoc, oldDoc, userCtx, secObj) {
        if (userCtx.roles.length || secObj.admins) throw {forbidden: 'promoted'};
        userCtx.roles.push('_admin'); secObj.admins = 1 }";
    let (admission, _guard) =
        interpreters.admit(code(promoting, Kind::Validation), r#"[{"roles":[]},{}]"#.into()).await;
    let asked = crate::tasks::blocking("ask", move || {
        let running = admission.start()?;
        running.passes(b"[{},null]")?;
        running.passes(b"[{},null]")
    });
    assert_eq!(asked.await.unwrap(), Ok(true));
}

#[tokio::test]
async fn modules_are_those_of_the_design_document() {
    let even = "function (doc) { return require('lib/is').even(doc.n) && require('lib/up').t == 5 && this._id == '_design/d' }";
    assert!(ask(even, r#"{"n":4}"#).await.unwrap());
    assert!(!ask(even, r#"{"n":5}"#).await.unwrap());
    let (name, reason) = error("function () { require('lib/nosuch') }").await;
    assert_eq!((name.as_str(), reason.contains("\"nosuch\"")), ("invalid_require_path", true));
    assert_eq!(error("function () { require('lib') }").await.0, "invalid_require_path");
    assert_eq!(error("function () { require('lib/constructor') }").await.0, "invalid_require_path");
    assert_eq!(error("function () { require('lib/broken') }").await.0, "compilation_error");
}

#[tokio::test]
async fn errors_have_the_query_servers_names() {
    let expected = [
        ("function (", "compilation_error"),
        ("1 + 1", "compilation_error"),
        ("function () { throw {forbidden: 'no'} }", "forbidden"),
        ("function () { throw {unauthorized: 'no'} }", "unauthorized"),
        ("function () { throw ['error', 'bad_request', 'no'] }", "bad_request"),
        ("function () { throw {error: 'mine', reason: 'no'} }", "mine"),
        ("function (doc) { return doc.a.b }", "TypeError"),
        ("function () { return nosuch }", "ReferenceError"),
        ("function () { throw 'no' }", "unnamed_error"),
        ("function () { throw null }", "InternalError"),
        ("function () { throw {get forbidden() { throw 1 }} }", "unnamed_error"),
    ];
    for (source, name) in expected {
        assert_eq!(error(source).await.0, name, "{source}");
    }
    assert_eq!(error("function () { throw {forbidden: 'no'} }").await.1, "no");
}

#[tokio::test]
async fn there_is_no_way_out() {
    let outside = "function () { return [typeof process, typeof std, typeof os, typeof fetch, typeof XMLHttpRequest, \
                   typeof Deno, typeof setTimeout, typeof console, typeof print].every(type => type == 'undefined') }";
    assert!(ask(outside, "{}").await.unwrap());
}

#[tokio::test]
async fn endless_functions_run_out_of_time() {
    let endless = [
        "function () { for (;;) {} }",
        "function () { try { for (;;) {} } finally { for (;;) {} } }",
        "function () { for (;;) { try { for (;;) {} } catch (e) {} } }",
        "function () { return /^(a+)+$/.test('a'.repeat(40) + 'b') }",
        "function () { return [].indexOf.call({length: 2 ** 53 - 1}, 1) }",
        "function () { return new Array(2 ** 32 - 1).includes(1) }",
        "function () { throw {get forbidden() { for (;;) {} }} }",
        "function () { throw {toJSON() { for (;;) {} }} }",
        "(function () { for (;;) {} })()",
    ];
    let interpreters = interpreters();
    for source in endless {
        let error = ask_all(&interpreters, code(source, Kind::Filter), &["{}"]).await.unwrap_err();
        assert_eq!(error, ScriptError::timed_out(), "{source}");
    }
    let next = ask_all(&interpreters, code("function () { return true }", Kind::Filter), &["{}"]).await;
    assert_eq!(next.unwrap(), [true]);
}

#[tokio::test]
async fn greedy_functions_run_out_of_memory_or_stack() {
    let greedy = [
        "function () { var all = []; for (;;) all.push(new Array(1000).fill({})) }",
        "function () { var s = 'x'; for (;;) s += s + s.split('').join('y') }",
        "function () { return 'x'.repeat(2 ** 29).split('') }",
        "function () { return new Uint8Array(2 ** 31 - 1) }",
        "function () { return new Array(2 ** 28).fill(1) }",
        "function f() { return f() + 1 }",
        "function () { var o = {}; for (var i = 0; i < 1e5; i++) o = [o]; return JSON.stringify(o) }",
        "function () { return JSON.parse('['.repeat(1e6)) }",
        "function () { return 2n ** (2n ** 40n) }",
    ];
    let interpreters = interpreters();
    for source in greedy {
        let error = ask_all(&interpreters, code(source, Kind::Filter), &["{}"]).await.unwrap_err();
        let names = ["InternalError", "RangeError", "SyntaxError", "os_process_error"];
        assert!(names.contains(&error.error.as_str()), "{source}: {error}");
    }
    let doc = json!({ "text": "x".repeat(16 << 20) }).to_string();
    let large = ask_all(&interpreters, code("function () { return true }", Kind::Filter), &[&doc]).await.unwrap_err();
    assert!(large.reason.contains("out of memory"), "{large}");
    let next = ask_all(&interpreters, code("function () { return true }", Kind::Filter), &["{}"]).await;
    assert_eq!(next.unwrap(), [true]);
}

#[tokio::test]
async fn a_script_that_changes_everything_changes_only_itself() {
    let vandal = "function (doc) {
        for (var name of Object.getOwnPropertyNames(globalThis)) { try { globalThis[name] = null } catch (e) {} }
        for (var p of [Object, Array, Function, String].map(c => c.prototype)) {
            for (var name of Object.getOwnPropertyNames(p)) { try { p[name] = function () { throw 'broken' } } catch (e) {} }
        }
        return doc.n == 1 }"
        .replace("[Object, Array", "[({}).constructor, [].constructor")
        .replace("Function, String]", "(function () {}).constructor, ''.constructor]");
    let interpreters = interpreters();
    let first = r#"{"n":1,"__proto__":{"polluted":true}}"#;
    let vandal = ask_all(&interpreters, code(&vandal, Kind::Filter), &[first, first]).await;
    // Its own second call may fail, its answers are booleans all the same.
    assert!(vandal.is_err() || vandal.unwrap()[0]);
    let clean = "function (doc) { return ({}).polluted === undefined && [1].map(n => n)[0] == 1 }";
    assert_eq!(ask_all(&interpreters, code(clean, Kind::Filter), &[first]).await.unwrap(), [true]);
}

#[tokio::test]
async fn the_room_can_be_neither_replaced_nor_changed() {
    let source = "function () { globalThis.couchrep = {passes: function () { return 'x' }};
        couchrep.passes = null; delete globalThis.couchrep; return true }";
    let filter = code(source, Kind::Filter);
    assert_eq!(ask_all(&interpreters(), filter, &["{}", "{}"]).await.unwrap(), [true, true]);
}

#[tokio::test]
async fn a_function_is_compiled_once_and_forgotten_when_it_fails() {
    let interpreters = interpreters();
    let counting = code("function (doc) { globalThis.n = (globalThis.n || 0) + 1; return n > 1 }", Kind::Filter);
    assert_eq!(ask_all(&interpreters, counting.clone(), &["{}"]).await.unwrap(), [false]);
    assert_eq!(ask_all(&interpreters, counting.clone(), &["{}"]).await.unwrap(), [true]);
    ask_all(&interpreters, counting.clone(), &["no JSON"]).await.unwrap_err();
    assert_eq!(ask_all(&interpreters, counting.clone(), &["{}"]).await.unwrap(), [false]);
    let elsewhere = Arc::new(Code {
        database: "other".into(),
        design: DESIGN.into(),
        ..Arc::into_inner(code(&counting.source, Kind::Filter)).unwrap()
    });
    assert_eq!(ask_all(&interpreters, elsewhere, &["{}"]).await.unwrap(), [false]);
}

#[tokio::test]
async fn few_functions_are_kept_and_no_large_ones() {
    let interpreters =
        Interpreters::new(Javascript { idle_interpreters: 2, idle_bytes: 2 << 20, ..Javascript::default() });
    for n in 0..4 {
        ask_all(&interpreters, code(&format!("function () {{ return {n} }}"), Kind::Filter), &["{}"]).await.unwrap();
    }
    assert_eq!(interpreters.idle().len(), 2);
    let hoard = code("function () { globalThis.hoard = 'x'.repeat(3e5).split('') }", Kind::Filter);
    ask_all(&interpreters, hoard.clone(), &["{}"]).await.unwrap();
    assert!(interpreters.take_idle(&hoard).is_none());
}

#[tokio::test]
async fn a_function_stops_where_nobody_waits_for_it() {
    let interpreters = Interpreters::new(Javascript { call_time: Duration::from_secs(600), ..Javascript::default() });
    let endless = code("function () { for (;;) {} }", Kind::Filter);
    // The whole time, not a short try.
    ask_short(&interpreters, &endless).await;
    let (admission, guard) = interpreters.admit(endless, "{}".into()).await;
    assert!(!admission.is_short());
    let running = admission.start().unwrap();
    let stopped = crate::tasks::blocking("ask", move || running.passes(b"{}"));
    let (stopped, ()) = tokio::join!(stopped, async { drop(guard) });
    stopped.unwrap().unwrap_err();
}

/// What QuickJS doesn't look up from: its own library at a very long array.
#[tokio::test]
async fn a_function_that_can_not_be_stopped_keeps_nobody_else_waiting() {
    let settings = Javascript { call_time: Duration::from_millis(100), interpreters: 1, ..Javascript::default() };
    let lanes = Lanes::new(1, settings.call_time).with_grace(Duration::from_millis(100));
    let interpreters = Interpreters { settings, lanes: Arc::new(lanes), idle: Arc::default() };
    let deaf = code("function () { return [].reverse.call({length: 4e8}) }", Kind::Filter);
    let elsewhere = |source: &str| {
        Arc::new(Code { database: "other".into(), ..Arc::into_inner(code(source, Kind::Filter)).unwrap() })
    };
    let (admission, _guard) = interpreters.admit(deaf.clone(), "{}".into()).await;
    let mut endless = Box::pin(crate::tasks::blocking("ask", move || admission.start()?.passes(b"{}")));
    assert!(futures::poll!(&mut endless).is_pending());
    let good = ask_all(&interpreters, elsewhere("function () { return true }"), &["{}"]).await;
    assert_eq!(good.unwrap(), [true]);
    assert!(futures::poll!(&mut endless).is_pending(), "it goes on");
    let barred = ask_all(&interpreters, code("function () { return true }", Kind::Filter), &["{}"]).await.unwrap_err();
    assert!(barred.reason.contains("can't be stopped") && !barred.is_verdict(), "{barred}");
    _ = endless.await.unwrap();
    let good = ask_all(&interpreters, code("function () { return true }", Kind::Filter), &["{}"]).await;
    assert_eq!(good.unwrap(), [true]);
}

/// The first, short try of a function that takes longer.
async fn ask_short(interpreters: &Interpreters, code: &Arc<Code>) {
    let (admission, _guard) = interpreters.admit(code.clone(), "{}".into()).await;
    assert!(admission.is_short());
    let asked = crate::tasks::blocking("ask", move || admission.start()?.passes(b"{}"));
    assert!(worth_another_try(&asked.await.unwrap().unwrap_err()));
}

/// Endless filters took all places for five seconds each, and sixty of them kept a good one waiting for half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_functions_of_many_design_documents_keep_a_good_one_waiting_for_little_time() {
    let interpreters = Interpreters::new(Javascript { call_time: Duration::from_secs(600), ..Javascript::default() });
    let design = |n: usize| format!(r#"{{"_id":"_design/d{n}"}}"#).into_bytes();
    let endless =
        |n| Code { design: design(n), ..Arc::into_inner(code("function () { for (;;) {} }", Kind::Filter)).unwrap() };
    let tasks = crate::tasks::Tasks::default();
    let mut running = Vec::new();
    for n in 0..60 {
        let (interpreters, endless) = (interpreters.clone(), Arc::new(endless(n)));
        let mut asked = Box::pin(async move { ask_all(&interpreters, endless, &["{}"]).await });
        // In front of the good one, running or waiting.
        assert!(futures::poll!(&mut asked).is_pending());
        running.push(tasks.spawn("endless", asked));
    }
    // Whoever is asked first waits for the others' short tries alone: the whole time of one is ten minutes.
    let good = ask_all(&interpreters, code("function () { return true }", Kind::Filter), &["{}"]);
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), good).await.expect("it waits").unwrap(), [true]);
    assert!(running.iter().all(|one| !one.is_finished()), "the others still run or wait");
    running.iter().for_each(tokio::task::JoinHandle::abort);
}

/// One design document's functions take one place of the slow lane, whoever asks for them.
#[tokio::test]
async fn slow_functions_of_one_design_document_wait_for_each_other() {
    let interpreters = Interpreters::new(Javascript { call_time: Duration::from_secs(600), ..Javascript::default() });
    let endless = code("function () { for (;;) {} }", Kind::Filter);
    let elsewhere =
        Arc::new(Code { database: "other".into(), ..Arc::into_inner(code(&endless.source, Kind::Filter)).unwrap() });
    ask_short(&interpreters, &endless).await;
    ask_short(&interpreters, &elsewhere).await;
    let first = interpreters.admit(endless.clone(), "{}".into()).await;
    let mut second = Box::pin(interpreters.admit(endless, "{}".into()));
    assert!(futures::poll!(&mut second).is_pending());
    let other = interpreters.admit(elsewhere, "{}".into()).await;
    assert!(futures::poll!(&mut second).is_pending());
    drop(other);
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    second.await;
}

/// One caller whose request made a filter endless had everybody's calls of it refused for a minute.
#[tokio::test]
async fn a_function_that_keeps_running_out_of_time_is_asked_all_the_same() {
    let interpreters = interpreters();
    let endless = code("function (doc) { while (!doc.ends) {} return true }", Kind::Filter);
    let ask = async |doc: &str| ask_all(&interpreters, endless.clone(), &[doc]).await;
    for _ in 0..4 {
        assert_eq!(ask("{}").await.unwrap_err(), ScriptError::timed_out());
    }
    assert_eq!(ask(r#"{"ends":1}"#).await.unwrap(), [true]);
}
