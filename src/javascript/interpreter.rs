//! One QuickJS with one compiled function.
//!
//! Documents go in as JSON text that QuickJS itself parses. What can't be interrupted can't be limited: QuickJS asks
//! its interrupt handler in every loop, call and regular expression of a script, but not in every loop of its own library
//! ([`super::calls`]).

use std::time::{Duration, Instant};

use rquickjs::function::Args;
use rquickjs::{Context, Ctx, Function, Object, Runtime, Value};
use tokio_util::sync::CancellationToken;

use crate::config::Javascript;

use super::{Code, ScriptError};

/// Far less than the stack of a thread that may block (2 MiB), since QuickJS' own functions need some beside it.
const STACK_BYTES: usize = 512 << 10;

/// How long after its time an answer still counts: the machine may be busy.
const LATE: Duration = Duration::from_secs(1);

const ROOM: &str = include_str!("room.js");

/// What one call may take.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// The heap, among others.
    pub settings: &'a Javascript,
    /// Its time.
    pub time: Duration,
    /// Ends it before.
    pub stop: &'a CancellationToken,
}

/// A compiled function and its heap.
pub struct Interpreter {
    context: Context,
}

impl std::fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interpreter")
    }
}

impl Interpreter {
    /// Makes an interpreter and compiles the function in it.
    pub fn compile(code: &Code, limits: Limits<'_>) -> Result<Self, ScriptError> {
        let settings = limits.settings;
        let runtime = Runtime::new().map_err(|_| exhausted(settings))?;
        runtime.set_memory_limit(settings.memory_bytes);
        runtime.set_max_stack_size(STACK_BYTES);
        let context = Context::full(&runtime).map_err(|_| exhausted(settings))?;
        let interpreter = Self { context };
        let answer = interpreter.limited(limits, |ctx| {
            let log = Function::new(ctx.clone(), |line: String| {
                tracing::debug!(line, "a design document's function logs");
            })?;
            let design = ctx.json_parse(code.design.as_slice())?;
            let room: Function<'_> = ctx.eval(ROOM)?;
            answered(room.call((design, code.source.as_str(), code.kind.name(), log))?)
        });
        answer.map(|_| interpreter)
    }

    /// Says which request the next calls are for: JSON.
    pub fn begin(&self, request: &str, limits: Limits<'_>) -> Result<(), ScriptError> {
        let answer = self.limited(limits, |ctx| {
            let request = ctx.json_parse(request)?;
            answered(call(&ctx, "begin", request)?)
        });
        answer.map(drop)
    }

    /// Asks the function about a document: JSON.
    pub fn passes(&self, doc: &[u8], limits: Limits<'_>) -> Result<bool, ScriptError> {
        self.limited(limits, |ctx| {
            let doc = ctx.json_parse(doc)?;
            answered(call(&ctx, "passes", doc)?)
        })
    }

    /// Bytes that the heap holds after a clean-up.
    pub fn memory(&self) -> usize {
        let runtime = self.context.runtime();
        runtime.run_gc();
        usize::try_from(runtime.memory_usage().malloc_size).unwrap_or(usize::MAX)
    }

    /// Runs one call within the limit of time. What comes out thrown is QuickJS' own: out of time, memory or stack; the
    /// room catches everything else.
    fn limited(
        &self,
        limits: Limits<'_>,
        work: impl FnOnce(Ctx<'_>) -> rquickjs::Result<Result<bool, ScriptError>>,
    ) -> Result<bool, ScriptError> {
        let deadline = Instant::now() + limits.time;
        let stop = limits.stop.clone();
        let over = move || stop.is_cancelled() || Instant::now() >= deadline;
        self.context.runtime().set_interrupt_handler(Some(Box::new(over.clone())));
        self.context.with(|ctx| match work(ctx.clone()) {
            // QuickJS' own library answers, however long it took.
            Ok(_) if Instant::now() >= deadline + LATE => Err(ScriptError::timed_out()),
            Ok(answer) => answer,
            Err(_) => {
                let thrown = ctx.catch();
                match thrown.as_exception().and_then(|exception| exception.message()) {
                    _ if over() => Err(ScriptError::timed_out()),
                    Some(message) if !message.contains("out of memory") => {
                        Err(ScriptError::new("InternalError", message))
                    }
                    _ => Err(exhausted(limits.settings)),
                }
            }
        })
    }
}

fn exhausted(settings: &Javascript) -> ScriptError {
    let limit = bytesize::ByteSize(settings.memory_bytes as u64);
    ScriptError::new("InternalError", format!("out of memory: the function or its document takes more than {limit}"))
}

fn call<'js>(ctx: &Ctx<'js>, name: &str, argument: Value<'js>) -> rquickjs::Result<Value<'js>> {
    let room: Object<'js> = ctx.globals().get("couchrep")?;
    let function: Function<'js> = room.get(name)?;
    let mut args = Args::new(ctx.clone(), 1);
    args.push_arg(argument)?;
    function.call_arg(args)
}

/// Reads a room's answer: a boolean, nothing, or the name and the reason of an error.
fn answered(answer: Value<'_>) -> rquickjs::Result<Result<bool, ScriptError>> {
    match answer.as_array() {
        None => Ok(Ok(answer.as_bool().unwrap_or(false))),
        Some(error) => Ok(Err(ScriptError { error: error.get(0)?, reason: error.get(1)? })),
    }
}
