//! Opening the connection of a background queue.

use crate::fault;
use crate::nginx::{self, HttpBlock, Log};
use crate::transport::connection::address::{Address, Parsed};
use crate::transport::connection::dial::Socket;
use crate::transport::connection::resolve::Resolution;
use crate::transport::connection::{Connection, Owner};
use crate::transport::error::Error;
use crate::transport::ids::{Asker, ConnectionKey, QueueKey};
use crate::transport::state::outcome::Opened;
use crate::transport::state::write_queue::ConnectionState;
use crate::transport::worker::Worker;

pub const CANNOT_CONNECT: &str = "lua memcached queue: cannot connect";

impl Worker {
    /// Opens the connection of a queue, now that nginx has one to spare. Returns it if it is
    /// established at once.
    pub fn open_queue(&mut self, key: QueueKey) -> Option<ConnectionKey> {
        let queue = self.queues.get_mut(key.0)?;
        if !matches!(queue.state, ConnectionState::Postponed) {
            return None;
        }
        queue.state = ConnectionState::Closed;
        let parsed = Address::parse(&queue.host, queue.port, Log::of_cycle());
        match parsed {
            Ok(Parsed::Address(address)) => self.open_queue_at(key, address),
            Ok(Parsed::Name) => self.look_up_for_queue(key),
            Err(error) => {
                self.cannot_open_queue(key, &error);
                None
            }
        }
    }

    fn look_up_for_queue(&mut self, key: QueueKey) -> Option<ConnectionKey> {
        let queue = self.queues.get_mut(key.0)?;
        let resolver = HttpBlock::current()?.resolver();
        match Resolution::start(&queue.host, Asker::Queue(key), resolver) {
            Ok(resolution) => {
                queue.state = ConnectionState::Resolving(resolution);
                self.use_answer_for_queue(key)
            }
            Err(error) => {
                self.cannot_open_queue(key, &error);
                None
            }
        }
    }

    /// Opens the connection if the server's name was looked up.
    pub fn use_answer_for_queue(&mut self, key: QueueKey) -> Option<ConnectionKey> {
        let queue = self.queues.get_mut(key.0)?;
        let ConnectionState::Resolving(resolution) = &mut queue.state else {
            return None;
        };
        let answer = resolution.take_answer()?;
        queue.state = ConnectionState::Closed;
        let port = queue.port;
        match answer {
            Ok(answer) => self.open_queue_at(key, answer.address.with_port(port)),
            Err(error) => {
                self.cannot_open_queue(key, &error);
                None
            }
        }
    }

    fn open_queue_at(&mut self, key: QueueKey, address: Address) -> Option<ConnectionKey> {
        let socket = Socket {
            log: Log::of_cycle(),
            nodelay: HttpBlock::current().is_none_or(HttpBlock::tcp_nodelay),
        };
        let opened = self.open_connection(address, socket, Owner::Queue(key), None, None, 0);
        let (connection_key, opened) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.cannot_open_queue(key, &error);
                return None;
            }
        };
        fault::point();
        let queue = self.queues.get_mut(key.0)?;
        let connection = self.connections.get_mut(connection_key)?;
        // what waits is to be sent on it
        std::mem::swap(&mut connection.pipeline, &mut queue.waiting);
        connection.nginx.make_cancelable();
        queue.state = ConnectionState::Open(connection_key);
        match opened {
            Opened::Connected => Some(connection_key),
            Opened::Pending => {
                connection.nginx.start_write_timer(queue.writes.timeout());
                None
            }
        }
    }

    /// The server cannot be connected to. It is tried again later.
    #[cold]
    pub fn cannot_open_queue(&mut self, key: QueueKey, error: &Error) {
        if let Some(queue) = self.queues.get_mut(key.0) {
            queue.note_loss(nginx::now(), true);
            let n = queue.writes.len() as u64;
            if !matches!(error, Error::Os(_)) {
                self.log_queue(key, CANNOT_CONNECT, n, &error.to_string());
            }
            self.count_queue_failure(key, error);
        }
    }

    /// The queue that a connection belongs to, if it does to one.
    pub fn queue_with(&self, key: ConnectionKey) -> Option<QueueKey> {
        self.connections.get(key).and_then(Connection::queue)
    }
}
