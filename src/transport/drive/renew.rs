//! Names of shared servers, looked up again.

use crate::fault;
use crate::nginx::Request;
use crate::transport::connection::address::Address;
use crate::transport::connection::resolve::{Answer, Resolution};
use crate::transport::error::Error;
use crate::transport::ids::{Asker, SharedPoolKey};
use crate::transport::worker::Worker;

impl Worker {
    /// Looks the name of a shared pool's server up again, by the resolver of a request's location.
    #[cold]
    #[inline(never)]
    pub fn look_up_again(&mut self, key: SharedPoolKey, request: Request) {
        let Some(shared_pool) = self.shared_pools.get_mut(key) else {
            return;
        };
        shared_pool.renew_after(0);
        if shared_pool.renewal.is_some() || shared_pool.tls || !request.is_of_cycle() {
            return;
        }
        let host = shared_pool.name.host.clone();
        let Ok(mut resolution) = Resolution::start(&host, Asker::Shared(key), request.resolver())
        else {
            return;
        };
        match resolution.take_answer() {
            None => shared_pool.renewal = Some(resolution),
            Some(answer) => {
                // a session is about to use the pool, which must not be dropped here
                shared_pool.usage.enter(0);
                self.renew_address(key, answer);
                self.leave(key);
            }
        }
    }

    /// The name was looked up again, or could not be.
    pub fn on_looked_up_again(&mut self, key: SharedPoolKey) {
        let shared_pool = self.shared_pools.get_mut(key);
        let renewal = shared_pool.and_then(|shared_pool| shared_pool.renewal.take());
        if let Some(answer) = renewal.and_then(|mut renewal| renewal.take_answer()) {
            self.renew_address(key, answer);
        }
    }

    pub fn renew_address(&mut self, key: SharedPoolKey, answer: Result<Answer, Error>) {
        let Some(shared_pool) = self.shared_pools.get_mut(key) else {
            return;
        };
        let Ok(answer) = answer else {
            return shared_pool.renew_after(0);
        };
        shared_pool.renew_after(answer.life);
        let port = shared_pool.name.port;
        let known =
            |address: &Address| answer.all.iter().any(|one| one.with_port(port) == *address);
        if !shared_pool.address.as_ref().is_some_and(known) {
            shared_pool.address = Some(answer.address.with_port(port));
        }
        fault::point();
        for connection in shared_pool.connections.clone() {
            let address_of = self
                .connections
                .get(connection)
                .map(|connection| &connection.address);
            if !address_of.is_some_and(known) {
                self.part_with(connection);
            }
        }
    }
}
