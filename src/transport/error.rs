//! Why an operation failed. Display is the text Lua sees; the texts are those of ngx_lua's
//! cosockets.

use std::rc::Rc;

use nginx_sys::ngx_err_t;

use crate::nginx;
use crate::protocol::Refused;

/// An operation that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not connected (any more), or the peer closed the connection.
    #[error("closed")]
    Closed,
    /// A connect, send or read timeout expired.
    #[error("timeout")]
    Timeout,
    /// Memory ran out.
    #[error("no memory")]
    NoMemory,
    /// Another coroutine is connecting this object.
    #[error("socket busy connecting")]
    BusyConnecting,
    /// Another coroutine waits for data on this object.
    #[error("socket busy reading")]
    BusyReading,
    /// Another coroutine is sending on this object.
    #[error("socket busy writing")]
    BusyWriting,
    /// nginx has no free connection.
    #[error("worker_connections are not enough")]
    NoConnection,
    /// The pool and its backlog are full.
    #[error("too many waiting connect operations")]
    TooManyWaiting,
    /// The bound on operations that wait on shared connections is reached.
    #[error("too many waiting operations")]
    TooManyOperations,
    /// `set_keepalive` with received bytes that nobody read.
    #[error("unread data in buffer")]
    UnreadData,
    /// `set_keepalive` on a connection that failed.
    #[error("invalid connection")]
    InvalidConnection,
    /// `set_keepalive` on a connection whose peer closed it or sent something.
    #[error("connection in dubious state")]
    Dubious,
    /// Bytes were there before the command was sent: they answer something else.
    #[error("bad reply: unsolicited data")]
    Unsolicited,
    /// An error line that the server sent without being asked, or instead of serving the
    /// connection.
    #[error("{}", String::from_utf8_lossy(.0))]
    Said(Rc<[u8]>),
    /// What is wrong with TLS, or with the peer's certificate.
    #[error("{0}")]
    Tls(String),
    /// nginx or ngx_lua was built without TLS.
    #[error("TLS is not supported by this nginx")]
    NoTls,
    /// The http block's directives could not be applied.
    #[error("no SSL context: the lua_ssl_* directives of the http block cannot be applied")]
    NoContext,
    /// An error of the operating system, nginx's text in lower case.
    #[error("{}", nginx::error_text(*.0))]
    Os(ngx_err_t),
    /// An error without a reason.
    #[error("error")]
    Unknown,
    /// A bug: the code has panicked. See the log.
    #[error("{}", crate::contain::INTERNAL)]
    Internal,
    /// Use of an object by another active request than its own. Raised in Lua.
    #[error("bad request")]
    BadRequest,
    /// A host that cannot be parsed or resolved.
    #[error("{0}")]
    Host(String),
}

impl Error {
    /// From an errno; 0 stands for a failure without one.
    pub fn from_errno(errno: ngx_err_t) -> Error {
        match errno {
            0 => Error::Unknown,
            errno => Error::Os(errno),
        }
    }
}

/// Why a connection was not pooled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepaliveError {
    /// Returned in Lua.
    #[error(transparent)]
    Failed(#[from] Error),
    /// Raised in Lua: there is no pool yet, and this is no size for one.
    #[error("bad \"pool_size\" option value: {0}")]
    BadPoolSize(i64),
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// The session cannot send.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The command must not be sent.
    #[error("{0}")]
    Refused(Refused),
}

/// Why a call gives no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// What was asked for failed.
    #[error("{0}")]
    Failed(E),
    /// The coroutine would have to wait, and cannot.
    #[error("cannot wait")]
    CannotWait,
    /// ngx_lua does not let it wait; its own words.
    #[error("{0}")]
    Refused(String),
}
