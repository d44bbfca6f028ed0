//! Names of shared servers, looked up again.

use std::ptr::NonNull;

use nginx_sys::{ngx_cycle, ngx_http_conf_ctx_t, ngx_http_module, ngx_http_request_t};

use crate::fault;
use crate::transport::error::Error;
use crate::transport::ids::{Asker, TrunkKey};
use crate::transport::link::address::Address;
use crate::transport::link::resolve::{Answer, Resolution};
use crate::transport::worker::Worker;

/// Whether a request has the configuration of the present cycle. If not, its
/// resolver may go while the request is the last one to know.
pub fn is_of_cycle(request: NonNull<ngx_http_request_t>) -> bool {
    // SAFETY: the request is live; the cycle exists, and with a request it has
    // an http block.
    unsafe {
        let context = *(*ngx_cycle).conf_ctx.add(ngx_http_module.index);
        let context = context.cast::<ngx_http_conf_ctx_t>();
        !context.is_null() && (*context).main_conf == (*request.as_ptr()).main_conf
    }
}

impl Worker {
    /// Looks the name of a trunk's server up again, by the resolver of a
    /// request's location.
    #[cold]
    #[inline(never)]
    pub fn look_up_again(&mut self, key: TrunkKey, request: NonNull<ngx_http_request_t>) {
        let Some(trunk) = self.trunks.get_mut(key) else {
            return;
        };
        trunk.renew_after(0);
        if trunk.renewal.is_some() || trunk.tls || !is_of_cycle(request) {
            return;
        }
        let host = trunk.name.host.clone();
        // SAFETY: the request is the running one.
        let started = unsafe { Resolution::start(&host, Asker::Trunk(key), request) };
        let Ok(mut resolution) = started else {
            return;
        };
        match resolution.take_answer() {
            None => trunk.renewal = Some(resolution),
            Some(answer) => {
                // a session will use it
                trunk.users += 1;
                self.renew_address(key, answer);
                self.leave(key);
            }
        }
    }

    /// The name was looked up again, or could not be.
    pub fn on_looked_up_again(&mut self, key: TrunkKey) {
        let trunk = self.trunks.get_mut(key);
        let renewal = trunk.and_then(|trunk| trunk.renewal.take());
        if let Some(answer) = renewal.and_then(|mut renewal| renewal.take_answer()) {
            self.renew_address(key, answer);
        }
    }

    pub fn renew_address(&mut self, key: TrunkKey, answer: Result<Answer, Error>) {
        let Some(trunk) = self.trunks.get_mut(key) else {
            return;
        };
        let Ok(answer) = answer else {
            return trunk.renew_after(0);
        };
        trunk.renew_after(answer.life);
        let port = trunk.name.port;
        let known =
            |address: &Address| answer.all.iter().any(|one| one.with_port(port) == *address);
        if !trunk.address.as_ref().is_some_and(known) {
            trunk.address = Some(answer.address.with_port(port));
        }
        fault::point();
        for link in trunk.links.clone() {
            let link_to = self.links.get(link).map(|link| &link.address);
            if !link_to.is_some_and(known) {
                self.part_with(link);
            }
        }
    }
}
