//! Connections on nginx's event loop: connecting, sending, receiving, and the worker's keepalive
//! pools.
//!
//! This file has what `lua` calls. ARCHITECTURE.md says what each directory and file is for, and on
//! which floor it is.
//!
//! Nothing here runs Lua. A coroutine that waits is woken through its semaphore, after the event
//! handler has returned.

mod background;
mod calls;
mod connection;
mod drive;
mod end;
mod error;
mod events;
mod fallback;
mod ids;
mod log;
mod open;
mod peer;
mod state;
mod wait;
mod worker;

pub use background::{enqueue, find_queue, is_running, queue_counts};
pub use background::{enqueue_for, upstream_counts};
#[cfg(ngx_feature = "http_ssl")]
pub use connection::tls::Certificate;
pub use connection::tls::Handshake;
pub use error::{CallError, Error, KeepaliveError, Rejected};
pub use ids::{PipelineKey, QueueKey, SessionKey};
pub use log::not_connected;
pub use peer::{Caller, Peer, PoolName};
pub use state::outcome::{Begun, Commands, Opened, Outcome, Slot};
pub use state::pipeline::{CommandPipeline, Queued};
pub use state::session::{Connecting, Timeouts};
pub use state::write_queue::NotQueued;

#[cfg(ngx_feature = "http_ssl")]
use std::rc::Rc;

#[cfg(ngx_feature = "http_ssl")]
use nginx_sys::SSL_SESSION;

use crate::nginx::{Msec, Request};
use crate::protocol::{Command, RawRead, Reply, Server};
use calls::room;
#[cfg(ngx_feature = "http_ssl")]
use connection::tls::TlsSession;
use fallback::Fallback;
use worker::Worker;
use worker::cell::{with, with_existing};

/// The process begins: makes the worker's state.
pub fn start() {
    connection::handlers::install(events::all());
    #[cfg(feature = "fault-injection")]
    crate::fault::when_asked(|| with(|_| ()));
    with(|_| ());
    crate::conf::when_servers_go(events::on_gone);
    with(Worker::begin_polls);
    worker::cell::begin();
}

/// Lets go of what belongs to an nginx cycle: look-ups by its resolvers, polls of its servers, and
/// ngx_lua's semaphores, which ngx_lua would miss when the cycle ends.
pub fn forget_cycle() {
    with_existing(|worker| {
        worker.end_renewals();
        worker.end_look_ups_of_queues();
        worker.begin_polls();
        worker.semaphores.free_all();
    });
}

/// The process ends: everything goes, before ngx_lua counts its semaphores and the module is
/// unloaded.
pub fn shut_down() {
    worker::cell::end(|worker| {
        worker.end_queues();
        worker.close_all();
        worker.take_back_tls_sessions();
    });
}

/// Runs `begin`. If that has begun an operation that is not over, has the caller wait for it in
/// `slot`.
#[inline(always)]
fn call<E: Fallback>(
    key: SessionKey,
    slot: Slot,
    caller: Caller,
    begin: impl FnOnce(&mut Worker) -> Result<Begun, E>,
) -> Result<Begun, CallError<E>> {
    with(|worker| {
        let begun = begin(worker).map_err(CallError::Failed)?;
        if let Begun::Waiting = begun {
            worker.suspend(key, slot, caller)?;
        }
        Ok(begun)
    })
}

/// Whether cosockets are allowed in the running phase of `request`.
///
/// # Errors
///
/// ngx_lua's own text.
pub fn check_phase(request: Request) -> Result<(), String> {
    // SAFETY: the request is the one whose Lua code runs.
    with(|worker| unsafe { worker.semaphores.check_phase(request) })
}

/// `connect`. Returns the session, whose key is null if there is no memory for one, and the result.
/// If that is `Pending`, the coroutine has to yield.
#[inline(always)]
pub fn connect(
    object: Connecting,
    caller: Caller,
    peer: &Peer<'_>,
) -> (SessionKey, Result<Opened, CallError<Error>>) {
    let request = caller.request;
    room::before(|worker| worker.opens_to_connect(request, peer));
    with(|worker| {
        let (key, opened) = worker.connect_object(object, request, peer);
        match opened {
            Ok(Opened::Pending) => {
                let waiting = worker.suspend(key, Slot::Reader, caller);
                (key, waiting.map(|()| Opened::Pending))
            }
            opened => (key, opened.map_err(CallError::Failed)),
        }
    })
}

/// Connects as [`connect`] does, but the coroutine goes on, and calls [`wait()`] later. The time to
/// connect runs from now on.
pub fn begin_connect(
    object: Connecting,
    request: Request,
    peer: &Peer<'_>,
) -> (SessionKey, Result<Opened, CallError<Error>>) {
    room::before(|worker| worker.opens_to_connect(request, peer));
    with(|worker| {
        let (key, opened) = worker.connect_object(object, request, peer);
        if let Ok(Opened::Pending) = opened {
            worker.limit_call(key, Slot::Reader);
        }
        (key, opened.map_err(CallError::Failed))
    })
}

/// Attaches a client's session to shared connections, if that is possible at once.
#[inline(always)]
pub fn attach_again(key: SessionKey, request: Request, peer: &Peer<'_>) -> bool {
    with(|worker| worker.attach_again(key, request, peer))
}

/// Detaches a client's session, and keeps it for the client's next call. False if that is not
/// possible.
#[inline(always)]
pub fn give_back(key: SessionKey, request: Request, timeout: Option<Msec>) -> bool {
    with(|worker| worker.give_back(key, request, timeout))
}

/// Whether a session exists, connected or not.
pub fn is_session(key: SessionKey) -> bool {
    with(|worker| worker.is_session(key))
}

/// Whether a session has no connection, nor is about to have one.
pub fn is_lost(key: SessionKey) -> bool {
    with(|worker| worker.is_lost(key))
}

/// Whether a session can take a command now: it is connected or about to be, and has sent no
/// command whose reply no coroutine waits for yet.
pub fn is_ready(key: SessionKey) -> bool {
    with(|worker| worker.is_ready(key))
}

/// Notes that a session tries a disabled server of an `upstream` block, which was chosen at
/// `began`.
pub fn note_trial(key: SessionKey, upstream: &[u8], server: &[u8], began: i64) {
    with(|worker| worker.note_trial(key, upstream, server, began));
}

/// Forgets the trials of a server, because their result is known.
pub fn settle_trials(upstream: &[u8], server: &[u8]) {
    with_existing(|worker| worker.settle_trials(upstream, server));
}

/// Lets another trial be made of the server that a session tried, if the session's trial has no
/// result.
pub fn give_trial_back(key: SessionKey) {
    with_existing(|worker| worker.give_trial_back(key));
}

/// Forgets a session whose Lua object is gone.
pub fn drop_session(key: SessionKey) {
    with_existing(|worker| worker.drop_session(key));
}

/// Changes the timeouts of a session's later operations.
pub fn set_timeouts(key: SessionKey, timeouts: Timeouts) {
    with(|worker| worker.set_timeouts(key, timeouts));
}

/// `getreusedtimes`: how often the session's connection was taken out of a pool.
pub fn reused_times(key: SessionKey) -> Result<u64, Error> {
    with(|worker| worker.reused_times(key))
}

/// `setkeepalive`: gives a session's connection to its pool. Returns the handle of the session, if
/// it is not needed any more.
#[inline(always)]
pub fn set_keepalive(
    key: SessionKey,
    request: Request,
    timeout: Option<Msec>,
    pool_size: Option<i64>,
) -> Result<Option<usize>, KeepaliveError> {
    with(|worker| worker.set_keepalive(key, request, timeout, pool_size))
}

/// `close`. Returns the handle of the session, if it is not needed any more.
pub fn close(key: SessionKey, request: Request) -> Result<Option<usize>, Error> {
    with(|worker| {
        worker.close(key, request)?;
        Ok(worker.retire(key))
    })
}

/// Whether `request` could send a command now.
pub fn check_ready(key: SessionKey, request: Request) -> Result<(), Error> {
    with(|worker| worker.check_ready(key, request))
}

/// Sends commands on behalf of the caller's request, and has the caller wait for the result in
/// `slot`.
#[inline(always)]
pub fn submit(
    key: SessionKey,
    slot: Slot,
    caller: Caller,
    commands: Commands<'_>,
) -> Result<Begun, CallError<Rejected>> {
    room::before(|worker| worker.opens_to_send(key, commands.can_share()));
    let request = caller.request;
    call(key, slot, caller, |worker| {
        worker.submit(key, request, commands)
    })
}

/// As [`submit`], for a question to the server, which is rare. It is apart, because `submit` is
/// inlined only as long as it has one caller.
#[cold]
#[inline(never)]
pub fn submit_question(
    key: SessionKey,
    caller: Caller,
    question: &Command<'_>,
) -> Result<Begun, CallError<Rejected>> {
    let commands = Commands::One(question);
    room::before(|worker| worker.opens_to_send(key, commands.can_share()));
    let request = caller.request;
    call(key, Slot::Reader, caller, |worker| {
        worker.submit(key, request, commands)
    })
}

/// Sends commands as [`submit`] does, but the coroutine goes on, and calls [`wait()`] later. Their
/// time runs from now on.
pub fn begin(
    key: SessionKey,
    slot: Slot,
    request: Request,
    commands: Commands<'_>,
) -> Result<Begun, CallError<Rejected>> {
    room::before(|worker| worker.opens_to_send(key, commands.can_share()));
    with(|worker| {
        let begun = worker.submit(key, request, commands);
        if let Ok(Begun::Waiting) = begun {
            worker.limit_call(key, slot);
        }
        begun.map_err(CallError::Failed)
    })
}

/// Has the caller wait for what [`begin`] has begun.
pub fn wait(key: SessionKey, slot: Slot, caller: Caller) -> Result<Begun, CallError<Error>> {
    with(|worker| {
        let begun = worker.begun(key, slot).map_err(CallError::Failed)?;
        if let Begun::Waiting = begun {
            worker.queue_caller(key, slot, caller)?;
        }
        Ok(begun)
    })
}

/// A new pipeline; its key is null if there is no memory for one.
pub fn new_pipeline() -> PipelineKey {
    with(Worker::new_pipeline)
}

/// How many commands were added to a pipeline.
pub fn pipeline_len(key: PipelineKey) -> usize {
    let mut len = 0;
    with_existing(|worker| len = worker.pipeline_len(key));
    len
}

/// Adds a command to a pipeline, see [`Worker::add_command`].
pub fn add_command(key: PipelineKey, form: u8, command: &Command<'_>) -> Result<(), Rejected> {
    with(|worker| worker.add_command(key, form, command))
}

/// Refuses those commands of a pipeline that a server does not support.
pub fn restrict_pipeline(key: PipelineKey, server: Server) {
    with_existing(|worker| worker.restrict_pipeline(key, server));
}

/// Sends the commands of a pipeline, see [`Worker::commit`].
pub fn commit(
    key: SessionKey,
    caller: Caller,
    pipeline: PipelineKey,
) -> Result<Begun, CallError<Rejected>> {
    room::before(|worker| worker.opens_to_commit(key, pipeline));
    let request = caller.request;
    call(key, Slot::Reader, caller, |worker| {
        worker.commit(key, request, pipeline)
    })
}

/// Ends a pipeline. Returns what was added to it.
pub fn take_pipeline(key: PipelineKey) -> CommandPipeline {
    let mut pipeline = CommandPipeline::default();
    with_existing(|worker| pipeline = worker.take_pipeline(key));
    pipeline
}

/// Stores a pipeline, and returns its key. `None` if there is no memory.
pub fn put_pipeline(pipeline: CommandPipeline) -> Option<PipelineKey> {
    with(|worker| worker.put_pipeline(pipeline))
}

/// Calls `look` with a pipeline. The worker's state is not in use meanwhile, so `look` may run Lua.
pub fn look_at_pipeline<R>(key: PipelineKey, look: impl FnOnce(&CommandPipeline) -> R) -> R {
    let mut lent = CommandPipeline::default();
    with_existing(|worker| lent = worker.lend_pipeline(key));
    let result = look(&lent);
    with_existing(|worker| worker.give_pipeline_back(key, lent));
    result
}

/// Sends the commands of a pipeline as [`commit`] does, but the coroutine goes on, as with
/// [`begin`].
pub fn begin_commit(
    key: SessionKey,
    request: Request,
    pipeline: PipelineKey,
) -> Result<Begun, CallError<Rejected>> {
    room::before(|worker| worker.opens_to_commit(key, pipeline));
    with(|worker| {
        let begun = worker.commit(key, request, pipeline);
        if let Ok(Begun::Waiting) = begun {
            worker.limit_call(key, Slot::Reader);
        }
        begun.map_err(CallError::Failed)
    })
}

/// Sends raw bytes.
pub fn send(key: SessionKey, caller: Caller, bytes: &[u8]) -> Result<Begun, CallError<Error>> {
    room::before(|worker| worker.opens_to_send(key, false));
    let request = caller.request;
    call(key, Slot::Writer, caller, |worker| {
        worker.send(key, request, bytes)
    })
}

/// Receives raw bytes.
pub fn receive(key: SessionKey, caller: Caller, want: RawRead) -> Result<Begun, CallError<Error>> {
    room::before(|worker| worker.opens_to_send(key, false));
    let request = caller.request;
    call(key, Slot::Reader, caller, |worker| {
        worker.receive(key, request, want)
    })
}

/// `sslhandshake`, see [`Worker::handshake`].
pub fn handshake(
    key: SessionKey,
    caller: Caller,
    handshake: Handshake,
) -> Result<Begun, CallError<Error>> {
    room::before(|worker| worker.opens_for_handshake(key));
    let request = caller.request;
    call(key, Slot::Reader, caller, |worker| {
        worker.handshake(key, request, handshake)
    })
}

/// Does a handshake as [`handshake`] does, but the coroutine goes on, as with [`begin`].
#[cfg(ngx_feature = "http_ssl")]
pub fn begin_handshake(
    key: SessionKey,
    request: Request,
    handshake: Handshake,
) -> Result<Begun, CallError<Error>> {
    room::before(|worker| worker.opens_for_handshake(key));
    with(|worker| {
        let begun = worker.handshake(key, request, handshake);
        if let Ok(Begun::Waiting) = begun {
            worker.limit_call(key, Slot::Reader);
        }
        begun.map_err(CallError::Failed)
    })
}

/// Takes the result of the operation that the resumed coroutine has waited for.
#[inline(always)]
pub fn take_outcome(key: SessionKey, slot: Slot) -> Outcome {
    with(|worker| worker.take_outcome(key, slot))
}

/// Takes the memory of a reply back.
#[inline(always)]
pub fn recycle(reply: Reply) {
    with(|worker| worker.recycle(reply));
}

/// The TLS session at an address that Lua passed, if it is one that it holds.
#[cfg(ngx_feature = "http_ssl")]
pub fn known_tls_session(session: *mut SSL_SESSION) -> Option<Rc<TlsSession>> {
    with(|worker| worker.known_tls_session(session))
}

/// Lends the TLS session of a session's connection to Lua; null if there is none.
#[cfg(ngx_feature = "http_ssl")]
pub fn lend_tls_session(key: SessionKey) -> *mut SSL_SESSION {
    with(|worker| worker.lend_tls_session(key))
}

/// Takes a TLS session back from Lua.
#[cfg(ngx_feature = "http_ssl")]
pub fn take_back_tls_session(session: *mut SSL_SESSION) {
    with_existing(|worker| worker.take_back_tls_session(session));
}
