//! The adapters among which a conversation can switch.

use anyhow::{Context, Result};
use glm_model::{Adapter, Conversation, Model};

use super::style::note;
use crate::{args, messages, open};

/// The name for the model without an adapter.
const NONE: &str = "none";

/// The name of the adapter that is given without one.
const UNNAMED: &str = "default";

/// The adapters of a chat by their names.
pub struct Adapters(Vec<(String, Adapter)>);

impl Adapters {
    /// Opens those of the arguments. The model has the unnamed one, or its own, already.
    pub fn open(args: &args::Model, model: &Model) -> Result<Self> {
        let taken = [NONE, UNNAMED].map(str::to_owned);
        let named = open::named_adapters(args, model, &taken)?;
        let unnamed = model.adapter().map(|adapter| (UNNAMED.to_owned(), adapter.clone()));
        Ok(Self(unnamed.into_iter().chain(named).collect()))
    }

    /// Lists the names, the current one marked.
    pub fn list(&self, conversation: &Conversation) {
        let current = conversation.bundle().model().adapter();
        let named = self.0.iter().map(|(name, adapter)| (&**name, Some(adapter)));
        for (name, adapter) in [(NONE, None)].into_iter().chain(named) {
            let mark = if adapter == current { '*' } else { ' ' };
            note(&format!("{mark} {name}"));
        }
    }

    /// Answers of the conversation come from the adapter of this name from now on. It is read again from its beginning.
    pub fn choose(&self, name: &str, conversation: &mut Conversation) -> Result<()> {
        let adapter = match name {
            NONE => None,
            name => {
                let found = self.0.iter().find(|(other, _)| other == name);
                let names = || self.0.iter().map(|(name, _)| &**name).chain([NONE]);
                let unknown =
                    || messages::no_such_adapter(name, names().collect::<Vec<_>>().join(", "));
                Some(&found.with_context(unknown)?.1)
            }
        };
        conversation.set_adapter(adapter)?;
        note(&messages::adapter_chosen(name));
        Ok(())
    }
}
