//! The names of servers are looked up again when the answers have expired.
//!
//! The first `connect` after that starts it in the background; the connections
//! there are serve meanwhile. Those to an address that the name has no more work
//! off what they have. If the look-up fails, they stay.

use std::ptr::NonNull;

use nginx_sys::{ngx_cycle, ngx_http_conf_ctx_t, ngx_http_module, ngx_http_request_t};

use super::Trunk;
use crate::fault;
use crate::nginx::{self, Msec};
use crate::transport::Error;
use crate::transport::address::Address;
use crate::transport::link::Link;
use crate::transport::resolve::{Answer, Asker, Resolution};
use crate::transport::worker::{LinkKey, TrunkKey, Worker};

/// Least time between two look-ups of one name, in milliseconds.
const MIN_LIFE: Msec = 1000;

impl Trunk {
    /// What was learned of the address holds for this time.
    pub(super) fn renew_after(&mut self, life: Msec) {
        self.renew_at = nginx::now().saturating_add(life.max(MIN_LIFE));
    }
}

impl Link {
    /// Whether it only works off what it has.
    pub(super) fn is_leaving(&self) -> bool {
        let sharing = self.sharing.as_ref();
        sharing.is_some_and(|sharing| sharing.leaving)
    }
}

impl Worker {
    /// Looks the name of a trunk's server up again, by the resolver of a
    /// request's location.
    #[cold]
    #[inline(never)]
    pub(super) fn look_up_again(&mut self, key: TrunkKey, request: NonNull<ngx_http_request_t>) {
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
    pub(in crate::transport) fn on_looked_up_again(&mut self, key: TrunkKey) {
        let trunk = self.trunks.get_mut(key);
        let renewal = trunk.and_then(|trunk| trunk.renewal.take());
        if let Some(answer) = renewal.and_then(|mut renewal| renewal.take_answer()) {
            self.renew_address(key, answer);
        }
    }

    fn renew_address(&mut self, key: TrunkKey, answer: Result<Answer, Error>) {
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

    /// A link takes no new work, and goes when it has worked off what it has.
    fn part_with(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let idle = link.pipeline.in_flight() == 0 && !link.is_connecting();
        if let Some(sharing) = &mut link.sharing {
            sharing.leaving = true;
            sharing.overdue = true;
        }
        if idle {
            self.fail_shared(key, Error::Closed);
        } else if self.is_nobodys(key) {
            self.arm_inspection(key, 0);
        }
    }

    /// Gives up what is looked up again: the resolvers of the cycle go.
    pub(in crate::transport) fn end_renewals(&mut self) {
        for trunk in self.trunks.values_mut() {
            trunk.renewal = None;
        }
    }
}

/// Whether a request has the configuration of the present cycle. If not, its
/// resolver may go while the request is the last one to know.
fn is_of_cycle(request: NonNull<ngx_http_request_t>) -> bool {
    // SAFETY: the request is live; the cycle exists, and with a request it has
    // an http block.
    unsafe {
        let context = *(*ngx_cycle).conf_ctx.add(ngx_http_module.index);
        let context = context.cast::<ngx_http_conf_ctx_t>();
        !context.is_null() && (*context).main_conf == (*request.as_ptr()).main_conf
    }
}
