//! Tables on the Lua stack.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::ptr;

use mlua::ffi::{
    LUA_TSTRING, LUA_TTABLE, lua_getfield_, lua_insert, lua_next, lua_rawget_, lua_rawgeti_,
    lua_rawset, lua_rawseti_, lua_setmetatable, lua_settop,
};

use super::state::{
    Index, REGISTRY, State, TOP, Value, lua_createtable, lua_newuserdata, lua_pushvalue,
};

/// A table on the stack, or in an upvalue.
///
/// Elements and keys are those of the table itself: no metamethod is called for them.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    state: State,
    at: Index,
}

impl State {
    /// Pushes a new table with room for this many elements and fields.
    pub fn push_table(self, elements: usize, fields: usize) -> Table {
        let size = |n: usize| c_int::try_from(n).unwrap_or(0);
        lua_createtable(self, size(elements), size(fields));
        let at = Index::new(self.top());
        Table { state: self, at }
    }

    /// The table at `index`, if there is one.
    #[inline(always)]
    pub fn table(self, index: c_int) -> Option<Table> {
        let at = Index::new(index);
        (self.kind(index) == LUA_TTABLE).then_some(Table { state: self, at })
    }

    /// Pushes the table that the registry of the VM has under this address. If there is none yet,
    /// `fill` fills a new one.
    pub fn push_kept_table<K>(self, key: &'static K, fill: impl FnOnce(Table)) -> Table {
        let key = Value::Address(ptr::from_ref(key).cast());
        let registry = Table::registry(self);
        if let Some(kept) = self.table(registry.push(key)) {
            return kept;
        }
        let table = self.push_table(0, 2);
        fill(table);
        registry.set(key, Value::At(table.at.0));
        table
    }

    /// Pushes a table of the values that `push` has pushed, of which it returns the number, and
    /// takes them off the stack. `room` makes the table's of that.
    pub fn push_packed(self, push: impl FnOnce() -> c_int, room: impl FnOnce(c_int) -> usize) {
        let before = self.top();
        let count = push().clamp(0, self.top() - before);
        let first = self.top() + 1 - count;
        self.push_table(room(count), 0);
        // SAFETY: the table goes below the values, which are then popped into it from the last to
        // the first. Nothing else that was pushed stays.
        unsafe {
            lua_insert(self.as_ptr(), first);
            for at in (1..=count).rev() {
                lua_rawseti_(self.as_ptr(), first, at);
            }
            if first != before + 1 {
                lua_insert(self.as_ptr(), before + 1);
                lua_settop(self.as_ptr(), before + 1);
            }
        }
    }

    /// Pushes a userdata of these words.
    pub fn push_words<'a, const N: usize>(
        self,
        words: [u64; N],
        metatable: Option<Table>,
    ) -> &'a [Cell<u64>; N] {
        let memory = lua_newuserdata(self, size_of::<[u64; N]>()).cast::<[Cell<u64>; N]>();
        // SAFETY: it has this size, is aligned to 8 bytes, and is there while it is on the stack; a
        // table is on top of it when it gets that.
        unsafe {
            memory.write(words.map(Cell::new));
            if let Some(metatable) = metatable {
                lua_pushvalue(self, metatable.at);
                lua_setmetatable(self.as_ptr(), -2);
            }
            &*memory
        }
    }
}

impl Table {
    /// # Safety
    ///
    /// A table is at `index`.
    #[inline(always)]
    pub unsafe fn assume(state: State, index: c_int) -> Table {
        let at = Index::new(index);
        Table { state, at }
    }

    /// The registry of the VM.
    fn registry(state: State) -> Table {
        let at = REGISTRY;
        Table { state, at }
    }

    /// Number of elements.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.state.len_at(self.at)
    }

    /// Pushes the value of a key, and returns where it is.
    pub fn push(self, key: Value<'_>) -> c_int {
        self.state.push(key);
        // SAFETY: see the type; the key was pushed.
        unsafe { lua_rawget_(self.state.as_ptr(), self.at.0) };
        self.state.top()
    }

    /// Pushes a field as Lua code gets it, and returns where it is. This may call a metamethod.
    pub fn push_field(self, name: &CStr) -> c_int {
        // SAFETY: see the type; the name ends with NUL.
        unsafe { lua_getfield_(self.state.as_ptr(), self.at.0, name.as_ptr()) };
        self.state.top()
    }

    #[inline(always)]
    fn get(self, n: c_int) {
        // SAFETY: see the type.
        unsafe { lua_rawgeti_(self.state.as_ptr(), self.at.0, n) };
    }

    /// Pushes an element, and returns where it is.
    #[inline(always)]
    pub fn push_element(self, n: c_int) -> c_int {
        self.get(n);
        self.state.top()
    }

    /// What `look` says of an element.
    #[inline(always)]
    fn peek<R>(self, n: c_int, look: impl FnOnce(Index) -> R) -> R {
        self.get(n);
        let result = look(TOP);
        self.drop_element();
        result
    }

    /// Behind [`Self::get`].
    #[inline(always)]
    fn drop_element(self) {
        // SAFETY: see the type; all callers have pushed the element.
        unsafe { lua_settop(self.state.as_ptr(), -2) };
    }

    /// The type of an element, and the number that it is or 0.
    #[inline(always)]
    pub fn number(self, n: c_int) -> (c_int, f64) {
        self.peek(n, |at| (self.state.kind_at(at), self.state.number_at(at)))
    }

    /// An element that is a string, or else its type.
    ///
    /// # Safety
    ///
    /// It stays in the table as long as the text is used.
    #[inline(always)]
    pub unsafe fn string<'a>(self, n: c_int) -> Result<&'a [u8], c_int> {
        self.peek(n, |at| match self.state.kind_at(at) {
            LUA_TSTRING => Ok(self.state.text_at(at).unwrap_or_default()),
            kind => Err(kind),
        })
    }

    /// Passes the type of each key to `look`, and the number that it is or 0. The table is not
    /// changed meanwhile.
    pub fn for_each_key(self, mut look: impl FnMut(c_int, f64)) {
        let state = self.state;
        self.for_each_pair(|key, _| look(state.kind(key), state.number(key)));
    }

    /// Passes to `look` where each key and its value are. The table is not changed meanwhile, and
    /// no key is converted to text unless it is one.
    pub fn for_each_pair(self, mut look: impl FnMut(c_int, c_int)) {
        let state = self.state;
        state.push(Value::Nil);
        // SAFETY: see the type. A key is on top, then key and value.
        unsafe {
            while lua_next(state.as_ptr(), self.at.0) != 0 {
                let top = state.top();
                look(top - 1, top);
                lua_settop(state.as_ptr(), -2);
            }
        }
    }

    /// Passes each key to `look`: its text if it is a string, else its type. The table is not
    /// changed meanwhile.
    pub fn for_each_name(self, mut look: impl FnMut(Result<&[u8], c_int>)) {
        let state = self.state;
        self.for_each_pair(|key, _| {
            look(match state.kind(key) {
                LUA_TSTRING => Ok(state.text(key).unwrap_or_default()),
                kind => Err(kind),
            });
        });
    }

    /// Sets an element.
    #[inline(always)]
    pub fn put(self, n: c_int, value: Value<'_>) {
        self.put_pushed(n, || self.state.push(value));
    }

    /// Sets an element to a new table with room for so many elements, which `fill` fills.
    pub fn put_table(self, n: c_int, elements: usize, fill: impl FnOnce(Table)) {
        self.put_pushed(n, || fill(self.state.push_table(elements, 0)));
    }

    /// Sets an element to a table of what `push` pushes, see [`State::push_packed`].
    pub fn put_packed(
        self,
        n: c_int,
        push: impl FnOnce() -> c_int,
        room: impl FnOnce(c_int) -> usize,
    ) {
        self.put_pushed(n, || self.state.push_packed(push, room));
    }

    #[inline(always)]
    fn put_pushed(self, n: c_int, push: impl FnOnce()) {
        push();
        // SAFETY: see the type; all callers push the value.
        unsafe { lua_rawseti_(self.state.as_ptr(), self.at.0, n) };
    }

    /// Sets an element to that of another table, if it is the userdata with this address.
    #[inline(always)]
    pub fn put_userdata_of(self, n: c_int, from: Table, m: c_int, address: usize) -> bool {
        from.get(m);
        let found = self.state.userdata_at(TOP).addr() == address;
        match found {
            true => self.put_pushed(n, || ()),
            false => from.drop_element(),
        }
        found
    }

    /// Sets the value of a key. Raises an error if that is nil.
    #[inline(always)]
    pub fn set(self, key: Value<'_>, value: Value<'_>) {
        self.set_pushed(|| {
            self.state.push(key);
            self.state.push(value);
        });
    }

    /// Sets the value of a string to a new table with room for so many elements, which `fill`
    /// fills.
    #[inline(always)]
    pub fn set_table(self, key: &[u8], elements: usize, fill: impl FnOnce(Table)) {
        self.set_pushed(|| {
            self.state.push_bytes(key);
            fill(self.state.push_table(elements, 0));
        });
    }

    #[inline(always)]
    fn set_pushed(self, push: impl FnOnce()) {
        push();
        // SAFETY: see the type; all callers push the key and the value.
        unsafe { lua_rawset(self.state.as_ptr(), self.at.0) };
    }
}
