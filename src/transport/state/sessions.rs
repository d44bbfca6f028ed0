//! The sessions of a worker, found by generational ids. Each request has some of its own, so the
//! memory of those that are gone is kept for those to come.

use slotmap::SlotMap;

use crate::ngx_lua::Cleanup;
use crate::transport::ids::SessionKey;
use crate::transport::state::session::{Session, Timeouts};
use crate::upstream::Spares;

/// A boxed session; there is a fallible way to make a box of this type.
type Boxed = Box<[Session; 1]>;

/// Sessions by id.
#[derive(Default)]
pub struct Sessions {
    slots: SlotMap<SessionKey, Boxed>,
    /// Cleared sessions for reuse. Their timeouts, handles and bounds are old.
    spares: Spares<Boxed>,
}

impl Sessions {
    /// A new session. `None`: no memory.
    #[inline(always)]
    pub fn make(&mut self, timeouts: Timeouts, handle: usize) -> Option<SessionKey> {
        self.slots.try_reserve(1).ok()?;
        let mut boxed = match self.spares.take() {
            Some(boxed) => boxed,
            None => self.make_box()?,
        };
        let [session] = &mut *boxed;
        session.timeouts = timeouts;
        session.handle = handle;
        Some(self.slots.insert(boxed))
    }

    #[cold]
    fn make_box(&mut self) -> Option<Boxed> {
        // as a spare it has to find a place, too
        self.spares.make_room(self.slots.len() + 1).then_some(())?;
        let mut one = Vec::new();
        one.try_reserve_exact(1).ok()?;
        one.push(Session::default());
        one.into_boxed_slice().try_into().ok()
    }

    /// Removes a session. Returns its cleanup, if it is registered, and its handle.
    #[inline(always)]
    pub fn remove(&mut self, key: SessionKey) -> Option<(Option<Cleanup>, usize)> {
        let mut boxed = self.slots.remove(key)?;
        let [session] = &mut *boxed;
        let left = (session.cleanup.take(), session.handle);
        session.clear();
        self.spares.give(boxed, self.slots.len());
        Some(left)
    }

    #[inline(always)]
    pub fn get(&self, key: SessionKey) -> Option<&Session> {
        let [session] = &**self.slots.get(key)?;
        Some(session)
    }

    #[inline(always)]
    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let [session] = &mut **self.slots.get_mut(key)?;
        Some(session)
    }

    /// Whether a call of a session waits for a reply or for raw data.
    #[inline(always)]
    pub fn reads(&self, key: SessionKey) -> bool {
        self.get(key)
            .is_some_and(|session| session.reads().is_some())
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.slots.iter().map(|(key, boxed)| {
            let [session] = &**boxed;
            (key, session)
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.slots.values_mut().map(|boxed| {
            let [session] = &mut **boxed;
            session
        })
    }

    /// Takes all out.
    pub fn drain(&mut self) -> impl Iterator<Item = Session> {
        self.spares.clear();
        self.slots.drain().map(|(_, boxed)| {
            let [session] = *boxed;
            session
        })
    }
}
