//! Counts the connections that are made to peers: a layer around what the HTTP client connects with. It also sees to it that a connection
//! is known to be of the request that wants it until it is made (`guard.rs`).

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _};
use tower::{Layer, Service};

use super::guard::WANTED;
use crate::counters::ReplicatorCounters;

/// The layer.
#[derive(Debug, Clone)]
pub(super) struct CountConnections(pub Arc<ReplicatorCounters>);

impl<S> Layer<S> for CountConnections {
    type Service = Counting<S>;

    fn layer(&self, connector: S) -> Counting<S> {
        Counting { connector, counters: self.0.clone() }
    }
}

/// A connector whose connections are counted.
#[derive(Debug, Clone)]
pub(super) struct Counting<S> {
    connector: S,
    counters: Arc<ReplicatorCounters>,
}

impl<S, R> Service<R> for Counting<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: R) -> Self::Future {
        let (connecting, counters) = (self.connector.call(to), self.counters.clone());
        let counted = async move { connecting.await.inspect(|_| counters.connections.increment()) };
        match WANTED.try_with(Clone::clone) {
            Ok(wanted) => WANTED.scope(wanted, counted).boxed(),
            // It will be refused.
            Err(_) => counted.boxed(),
        }
    }
}
