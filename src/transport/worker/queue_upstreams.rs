//! Background queues to servers of `upstream` blocks: what comes of their connections counts for
//! the servers, as what comes of users' operations does.

use nginx_sys::{NGX_LOG_INFO, NGX_LOG_WARN};

use crate::conf::{count_failure, count_success};
use crate::group::Failure;
use crate::nginx::{self, Log};
use crate::transport::error::Error;
use crate::transport::ids::QueueKey;
use crate::transport::state::write_queue::WriteQueue;
use crate::transport::worker::Worker;
use crate::upstream::Counts;

impl Worker {
    /// Notes whether the server of a queue has failed before (`suspect`).
    pub fn suspect_server_of_queue(&mut self, key: QueueKey, suspect: bool) {
        if let Some(queue) = self.queues.get_mut(key.0) {
            queue.suspect |= suspect;
        }
    }

    /// The connection of a queue failed. What is no fault of the server does not count.
    pub fn count_queue_failure(&mut self, key: QueueKey, error: &Error) {
        let ours = matches!(
            error,
            Error::NoMemory | Error::NoConnection | Error::Internal
        );
        if ours || nginx::is_exiting() {
            return;
        }
        let Some(queue) = self.queues.get(key.0) else {
            return;
        };
        if count_failure(&queue.upstream, queue.peer().as_bytes()) == Some(Failure::Disabled) {
            tell(queue, NGX_LOG_WARN, |server| {
                format!("upstream server temporarily disabled: {server}")
            });
        }
    }

    /// The server of a queue has answered.
    pub fn count_queue_success(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key.0) else {
            return;
        };
        let suspect = std::mem::take(&mut queue.suspect);
        if suspect && count_success(&queue.upstream, queue.peer().as_bytes()) == Some(true) {
            tell(queue, NGX_LOG_INFO, |server| {
                format!("upstream server {server} is used again")
            });
        }
    }

    /// As `queue_counts`, of all queues that the writes of a block go to.
    pub fn upstream_counts(&self, upstream: &[u8]) -> (usize, usize, Counts) {
        let used = |queue: &&WriteQueue| *queue.upstream == *upstream;
        let (mut writes, mut bytes, mut counts) = (0, 0, Counts::default());
        for queue in self.queues.iter().filter(used) {
            writes += queue.writes.len();
            bytes += queue.writes.size();
            counts += queue.writes.counts();
        }
        (writes, bytes, counts)
    }
}

/// `line`: what is said of a server, which is `"server" of "upstream"`.
fn tell(queue: &WriteQueue, level: u32, line: impl FnOnce(&str) -> String) {
    let (name, server) = (String::from_utf8_lossy(&queue.upstream), queue.peer());
    let line = line(&format!("\"{server}\" of \"{name}\""));
    nginx::with_peer(Log::of_cycle(), &server, |log| {
        log.write(level, 0, format_args!("{line}"));
    });
}
