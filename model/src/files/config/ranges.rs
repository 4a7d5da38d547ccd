//! Fields of `config.json` that several dialects have, with their ranges.

use crate::error::Result;
use crate::files::fields::Fields;
use crate::limits::config::{
    MAX_HEAD_SIZE, MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE, MAX_LAYERS, MAX_VOCAB,
};

impl Fields<'_> {
    pub(super) fn vocab(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=MAX_VOCAB)
    }

    pub(super) fn hidden(&self) -> Result<usize> {
        self.size("hidden_size", 8..=MAX_HIDDEN)
    }

    pub(super) fn heads(&self) -> Result<usize> {
        self.size("num_attention_heads", 1..=MAX_HEADS)
    }

    pub(super) fn layers(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=MAX_LAYERS)
    }

    pub(super) fn intermediate_size(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=MAX_INTERMEDIATE)
    }

    pub(super) fn context(&self, name: &str) -> Result<usize> {
        self.size(name, 1..=1 << 21)
    }

    /// The size of a head if all heads together have the hidden size.
    pub(super) fn head_size(&self, hidden: usize, heads: usize) -> Result<usize> {
        if !hidden.is_multiple_of(heads) {
            return Err(self.error(format!(
                "hidden_size {hidden} is no multiple of num_attention_heads {heads}"
            )));
        }
        self.check_head_size("hidden_size / num_attention_heads", hidden / heads)
    }

    pub(super) fn check_head_size(&self, what: &str, size: usize) -> Result<usize> {
        if size.is_multiple_of(8) && (8..=MAX_HEAD_SIZE).contains(&size) {
            return Ok(size);
        }
        Err(self.error(format!(
            "{what} is a head size of {size}; it must be a multiple of 8 up to {MAX_HEAD_SIZE}"
        )))
    }

    /// The number of key-value heads in field `name`, of which `heads` must be a multiple.
    pub(super) fn kv_heads(&self, name: &str, heads: usize) -> Result<usize> {
        let groups = self.size(name, 1..=heads)?;
        if heads.is_multiple_of(groups) {
            return Ok(groups);
        }
        Err(self.error(format!("{heads} heads cannot share {groups} {name}")))
    }
}
