//! Bytes out and in: sending, receiving, timeouts and failures of a link.

use std::ptr::NonNull;

use nginx_sys::{
    NGX_ERROR, NGX_LOG_ERR, NGX_OK, ngx_add_timer, ngx_connection_t, ngx_handle_read_event,
    ngx_handle_write_event, ngx_http_request_t, ngx_int_t,
};

use super::Error;
use super::link::{Link, Owner, ReadTimer};
use super::op::{Op, Outcome, Slot, Status, Work, take_data};
use super::session::State;
use super::worker::{LinkKey, Worker};
use crate::fault;
use crate::nginx::{self, stop_timer};
use crate::ngx_lua::Settings;
use crate::protocol::{Malformed, Reply};

/// Bytes read at most from a connection that fails.
const READ_AT_ONCE: usize = 1024 * 1024;

/// How a round of receiving ended.
enum Received {
    /// Nothing more for now.
    Blocked,
    /// The link is gone.
    Gone,
}

impl Worker {
    /// Sends what is to be sent, as far as the socket takes it.
    pub(super) fn flush(&mut self, key: LinkKey) {
        self.flush_with(key, b"");
    }

    /// As [`Self::flush`]; `value`, unless empty, is what `Pipeline::submit_head`
    /// left to be sent.
    pub(super) fn flush_with(&mut self, key: LinkKey, mut value: &[u8]) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        // while it is connecting, what there is to send waits
        let Owner::Session {
            session: owner,
            connecting: false,
        } = link.owner
        else {
            return;
        };
        let Some(session) = self.sessions.get_mut(owner) else {
            return;
        };
        let c = link.connection.as_ptr();
        let ok = NGX_OK as ngx_int_t;
        // SAFETY: the link's connection is open; its send function reads at
        // most `len` bytes.
        let result = unsafe {
            loop {
                if !value.is_empty() {
                    match link.send_with(std::mem::take(&mut value)) {
                        Ok(()) => {}
                        Err(error) => break Err(error),
                    }
                }
                let unsent = match link.tls {
                    None => link.pipeline.unsent(),
                    Some(_) => match link.record.next(&link.pipeline) {
                        Some(record) => record,
                        None => break Err(Error::NoMemory),
                    },
                };
                if unsent.is_empty() {
                    stop_timer((*c).write);
                    break match ngx_handle_write_event((*c).write, 0) {
                        rc if rc == ok => Ok(true),
                        _ => Err(Error::Unknown),
                    };
                }
                let sent = (*c).send.map_or(NGX_ERROR as isize, |send| {
                    send(c, unsent.as_ptr().cast_mut(), unsent.len())
                });
                if sent > 0 {
                    if link.tls.is_some() {
                        link.record.taken(sent.unsigned_abs());
                    }
                    link.pipeline.sent(sent.unsigned_abs());
                    fault::point();
                } else if sent == NGX_ERROR as isize {
                    break Err(Error::from_errno(nginx::last_errno()));
                } else {
                    stop_timer((*c).write);
                    ngx_add_timer((*c).write, session.send_timeout());
                    let lowat = session
                        .request()
                        .and_then(|request| Settings::of(request))
                        .map_or(0, |settings| settings.send_lowat());
                    break match ngx_handle_write_event((*c).write, lowat) {
                        rc if rc == ok => Ok(false),
                        _ => Err(Error::Unknown),
                    };
                }
            }
        };
        match result {
            Ok(true) => {
                if let Some(op) = &mut session.writer {
                    let bytes = match op.work_mut() {
                        Some(Work::Send { bytes }) => *bytes,
                        _ => 0,
                    };
                    op.finish(Outcome::Sent(bytes));
                }
            }
            Ok(false) => {}
            Err(error) => self.fail_writing(key, error),
        }
    }

    /// Nothing can be sent any more, as one learns before the read event comes.
    /// What the server has said before goes to whoever waits for it first.
    #[cold]
    fn fail_writing(&mut self, key: LinkKey, error: Error) {
        let mut read = 0;
        while read < READ_AT_ONCE
            && self.pending_reader(key).is_some()
            && let Some(link) = self.links.get_mut(key)
            && link.peek().is_ok_and(|n| n > 0)
        {
            link.assume_readable();
            match link.receive() {
                Some(Ok(n @ 1..)) => read += n,
                _ => break,
            }
            self.deliver(key);
        }
        self.fail(key, error, State::Broken { reused: 0 });
    }

    /// Takes what has been received already and arms the read event and the
    /// read timeout, if an operation waits for data.
    pub(super) fn read_if_due(&mut self, key: LinkKey) {
        let connecting = self.links.get(key).is_some_and(Link::is_connecting);
        if connecting || self.pending_reader(key).is_none() {
            return;
        }
        if self.links.get(key).is_some_and(Link::has_received) {
            self.deliver(key);
        }
        if self.pending_reader(key).is_some() {
            self.read(key);
        }
    }

    /// Receives until the socket has nothing more or the operation is done.
    fn read(&mut self, key: LinkKey) {
        match self.receive_all(key) {
            Received::Gone => {}
            Received::Blocked => {
                let Some(link) = self.links.get_mut(key) else {
                    return;
                };
                let Owner::Session { session, .. } = link.owner else {
                    return;
                };
                let Some(session) = self.sessions.get(session) else {
                    return;
                };
                let pending = session
                    .reader
                    .as_ref()
                    .is_some_and(|op| op.status() == Status::Pending);
                let c = link.connection.as_ptr();
                link.read_due = None;
                if pending && link.pipeline.unsent().is_empty() {
                    link.limit_read(session.read_timeout());
                }
                // SAFETY: the link's connection is open.
                let rc = unsafe {
                    if link.read_due.is_none() && pending {
                        // the peer answers before it has read all: no stall
                        stop_timer((*c).write);
                        ngx_add_timer((*c).write, session.send_timeout());
                    }
                    ngx_handle_read_event((*c).read, 0)
                };
                if rc != NGX_OK as ngx_int_t {
                    self.fail(key, Error::Unknown, State::Broken { reused: 0 });
                }
            }
        }
    }

    fn receive_all(&mut self, key: LinkKey) -> Received {
        loop {
            let Some(link) = self.links.get_mut(key) else {
                return Received::Gone;
            };
            if !link.is_readable() {
                return Received::Blocked;
            }
            let error = match link.receive() {
                None => return Received::Blocked,
                Some(Ok(0)) if self.finish_read_all(key) => return Received::Blocked,
                Some(Ok(0)) => Error::Closed,
                Some(Ok(_)) => {
                    self.deliver(key);
                    if self.pending_reader(key).is_some() {
                        continue;
                    }
                    // what else there is, an end of the stream included, is
                    // the next operation's
                    return Received::Blocked;
                }
                Some(Err(error)) => error,
            };
            self.fail(key, error, State::Broken { reused: 0 });
            return Received::Gone;
        }
    }

    /// The end of the stream completes a raw read of all there is, and leaves
    /// the connection to be closed by its owner.
    fn finish_read_all(&mut self, key: LinkKey) -> bool {
        match self.pending_reader(key) {
            Some(op) if op.reads_all() => {
                op.fail(Error::Closed, false);
                true
            }
            _ => false,
        }
    }

    /// The operation that waits for data on a link in use.
    fn pending_reader(&mut self, key: LinkKey) -> Option<&mut Op> {
        let Owner::Session { session, .. } = self.links.get(key)?.owner else {
            return None;
        };
        let op = self.sessions.get_mut(session)?.reader.as_mut()?;
        (op.status() == Status::Pending).then_some(op)
    }

    /// Hands received bytes to whom they belong.
    fn deliver(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        while let Some((tag, reply)) = link.pipeline.next_reply() {
            fault::point();
            if link.pipeline.is_broken()
                && let Reply::Malformed(Malformed::Unsolicited) = reply
            {
                link.log_unsolicited();
            }
            if let Some(op) = self
                .sessions
                .get_mut(tag.session)
                .and_then(|s| s.reader.as_mut())
            {
                accept(op, reply);
            }
        }
        if link.pipeline.is_broken() {
            self.fail(key, Error::Closed, State::Broken { reused: 0 });
            return;
        }
        let Owner::Session { session, .. } = link.owner else {
            return;
        };
        let op = self
            .sessions
            .get_mut(session)
            .and_then(|s| s.reader.as_mut());
        if let Some(op) = op
            && link.pipeline.in_flight() == 0
            && let Some(Work::Receive(reader)) = op.work_mut()
        {
            if !reader.make_room(link.pipeline.buffered().len()) {
                return self.fail(key, Error::NoMemory, State::Broken { reused: 0 });
            }
            let (taken, complete) = reader.feed(link.pipeline.buffered());
            link.pipeline.consume(taken);
            if complete {
                link.unanswered = false;
                let data = take_data(reader);
                op.finish(Outcome::Received(data));
            }
        }
    }

    /// A read event of a link in use.
    pub(super) fn on_readable(&mut self, key: LinkKey) {
        fault::point();
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Session { session, .. } = link.owner else {
            return;
        };
        let c = link.connection.as_ptr();
        let timer = link.read_timer();
        let Some(session) = self.sessions.get_mut(session) else {
            return;
        };
        if timer == ReadTimer::Early {
            return;
        }
        if timer == ReadTimer::Expired {
            link.read_due = None;
            log_socket_error(
                session.request(),
                format_args!("lua tcp socket read timed out"),
            );
            // as with cosockets, a raw receive can be tried again
            match &mut session.reader {
                Some(op) if op.is_raw_receive() => op.fail(Error::Timeout, false),
                _ => self.fail(key, Error::Timeout, State::Closed),
            }
            return;
        }
        // SAFETY: the link's connection is open.
        let shutting_down = unsafe { (*c).close() != 0 && (*c).error() != 0 };
        if shutting_down {
            // worker_shutdown_timeout
            self.fail(key, Error::Closed, State::Broken { reused: 0 });
            return;
        }
        if self.pending_reader(key).is_some() {
            self.read(key);
        } else {
            // nobody reads now; the event stays noted as ready
            // SAFETY: as above.
            unsafe { ngx_handle_read_event((*c).read, 0) };
        }
    }

    /// A write event of a link in use.
    pub(super) fn on_writable(&mut self, key: LinkKey) {
        fault::point();
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        if unsafe { (*(*c).write).timedout() } != 0 {
            if let Owner::Session { session, .. } = link.owner {
                let request = self.sessions.get(session).and_then(|s| s.request());
                log_socket_error(request, format_args!("lua tcp socket write timed out"));
            }
            self.fail(key, Error::Timeout, State::Broken { reused: 0 });
            return;
        }
        if link.pipeline.unsent().is_empty() {
            return;
        }
        if let Owner::Session { session, .. } = link.owner {
            // of a light thread that was killed nothing more is sent
            self.reap(session);
        }
        self.flush(key);
        let sent = self
            .links
            .get(key)
            .is_some_and(|link| link.pipeline.unsent().is_empty());
        if sent {
            self.read_if_due(key);
        }
    }

    /// A link failed: it closes, and those who waited get the error. `state`
    /// is how its session goes on.
    pub(super) fn fail(&mut self, key: LinkKey, error: Error, state: State) {
        fault::point();
        let Some(link) = self.links.get(key) else {
            return;
        };
        let writing = !link.pipeline.unsent().is_empty();
        let reused = link.reused;
        if let Owner::Session { session, .. } = link.owner
            && let Some(session) = self.sessions.get_mut(session)
        {
            session.state = match state {
                State::Broken { .. } => State::Broken { reused },
                state => state,
            };
            for slot in [Slot::Reader, Slot::Writer] {
                if let Some(op) = session.op(slot) {
                    op.fail(error.clone(), writing);
                }
            }
        }
        self.close_link(key);
    }

    /// Closes a link and lets the pool know that there is room.
    pub(super) fn close_link(&mut self, key: LinkKey) {
        if let Some(link) = self.links.remove(key) {
            let pool = link.pool;
            drop(link);
            fault::point();
            if let Some(pool) = pool {
                self.release(pool);
            }
        }
    }
}

/// Adds a reply to the operation that waits for it.
pub(super) fn accept(op: &mut Op, reply: Reply) {
    match op.work_mut() {
        Some(Work::Command) => op.finish(Outcome::Reply(reply)),
        Some(Work::Pipeline { replies, expected }) => {
            replies.push(reply);
            if replies.len() == *expected {
                let replies = std::mem::take(replies);
                op.finish(Outcome::Replies(replies, None));
            }
        }
        _ => {}
    }
}

impl Link {
    /// Whether the connection does not stand yet.
    pub(super) fn is_connecting(&self) -> bool {
        matches!(
            self.owner,
            Owner::Session {
                connecting: true,
                ..
            } | Owner::Trunk {
                connecting: true,
                ..
            }
        )
    }

    /// Whether there is anything to deliver without reading more.
    fn has_received(&self) -> bool {
        !self.pipeline.buffered().is_empty() || self.pipeline.is_broken()
    }

    /// Whether the socket may have something to read.
    pub(super) fn is_readable(&self) -> bool {
        let c: *mut ngx_connection_t = self.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            let read = (*c).read;
            (*read).ready() != 0 || (*read).eof() != 0 || (*read).active() == 0
        }
    }

    /// One read from the socket into the pipeline: how many bytes came, 0 at
    /// the end of the stream; `None` if there is nothing now.
    pub(super) fn receive(&mut self) -> Option<Result<usize, Error>> {
        let c = self.connection.as_ptr();
        let target = self.pipeline.read_buf();
        if target.max == 0 {
            return Some(Err(Error::NoMemory));
        }
        let room = target.buf.spare_capacity_mut();
        let len = target.max.min(room.len());
        // SAFETY: the connection is open; its receive function fills at most
        // `len` bytes of the spare capacity, and tells how many.
        unsafe {
            let got = match (*c).recv {
                Some(recv) => recv(c, room.as_mut_ptr().cast(), len),
                None => NGX_ERROR as isize,
            };
            match got {
                got if got >= 0 => {
                    let got = got.unsigned_abs();
                    target.buf.set_len(target.buf.len() + got);
                    Some(Ok(got))
                }
                got if got == NGX_ERROR as isize => {
                    Some(Err(Error::from_errno(nginx::last_errno())))
                }
                _ => None,
            }
        }
    }
}

/// Logs what cosockets log, unless `lua_socket_log_errors` is off.
pub(super) fn log_socket_error(
    request: Option<NonNull<ngx_http_request_t>>,
    text: std::fmt::Arguments<'_>,
) {
    let Some(request) = request else { return };
    // SAFETY: a session's request is live.
    unsafe {
        if Settings::of(request).is_some_and(|settings| settings.log_errors()) {
            nginx::log(NGX_LOG_ERR, (*(*request.as_ptr()).connection).log, 0, text);
        }
    }
}
