//! The parameters of a directive that have names.

use std::ffi::CStr;

/// Parameters of a directive that were not looked at yet. A name is taken once.
pub struct Parameters<'a>(Vec<&'a [u8]>);

impl<'a> Parameters<'a> {
    /// These.
    pub fn new(words: &[&'a [u8]]) -> Parameters<'a> {
        Parameters(words.to_vec())
    }

    /// What follows a parameter's name.
    pub fn take(&mut self, name: &[u8]) -> Result<Option<&'a [u8]>, &'static CStr> {
        let mut found = None;
        for at in (0..self.0.len()).rev() {
            if let Some(value) = self.0.get(at).and_then(|text| text.strip_prefix(name)) {
                self.0.remove(at);
                if found.replace(value).is_some() {
                    return Err(c"has a parameter twice");
                }
            }
        }
        Ok(found)
    }

    /// Nothing may be left.
    pub fn end(self, error: &'static CStr) -> Result<(), &'static CStr> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(error),
        }
    }
}
