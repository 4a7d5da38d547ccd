//! The model that is served: requests become prompts, and prompts answers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use glm_model::{BatchOptions, CancelToken, Client, MaskKind};

use super::addresses::network;
use super::answer::{Answers, Reading};
use super::encoding::Encoding;
use super::engine::{Engine, Places};
use super::error::Result;
use super::listen::Peer;
use super::{App, Phase};
use crate::args;
use crate::failure::usage;
use crate::messages;

pub use crate::api::model::{ApiModel, Question};

/// The model that is served.
pub struct Served {
    model: ApiModel,
    engine: Engine,
    encoding: Encoding,
}

impl Deref for Served {
    type Target = ApiModel;

    fn deref(&self) -> &ApiModel {
        &self.model
    }
}

impl Served {
    /// Opens the model and starts the engine.
    ///
    /// # Errors
    /// If the model cannot be opened, or a flag does not fit it.
    pub fn open(args: &args::Serve, app: &Arc<App>) -> anyhow::Result<Self> {
        let mut options = BatchOptions::default();
        options.max_sequences = args.max_sequences;
        options.cache_bytes = args.api.cache_memory;
        let model = ApiModel::open(&args.model, &args.api, args.max_sequences)?;
        let failed = {
            let app = Arc::clone(app);
            move || {
                let _ = app.failure.set(());
                app.phase.send_replace(Phase::Draining);
            }
        };
        let metrics = app.metrics.clone();
        let file = args.cache_file.clone();
        if file.is_some() && matches!(model.model().config().mask, MaskKind::Prefix(_)) {
            return Err(usage(messages::cache_file_needs_causal()));
        }
        let engine = Engine::start(model.model(), options, args.queue, file, metrics, failed)?;
        let encoding = Encoding::new(args.max_sequences + args.queue);
        Ok(Self { model, engine, encoding })
    }

    /// Ends all answers.
    pub fn stop(&self) {
        self.engine.stop();
    }

    /// Whether no answer runs or waits.
    pub fn is_free(&self) -> bool {
        self.engine.is_free()
    }

    /// Saves the cache, if there is a file for it. There are no answers any more.
    ///
    /// # Errors
    /// If the file cannot be written, or `cancel` asks for the end before it is.
    pub async fn end(&self, cancel: &CancelToken) -> glm_model::Result<()> {
        self.engine.end(cancel).await
    }

    /// The work before an answer.
    pub fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// Places that a client keeps for this many answers at a time, one after the other.
    ///
    /// # Errors
    /// As [`Engine::places`].
    pub fn places(&self, client: Client, answers: usize) -> Result<Places> {
        self.engine.places(client, answers)
    }

    /// The answers to a question, in the places that its request has, or in new ones.
    ///
    /// # Errors
    /// If a prompt cannot be answered, or too many requests wait.
    pub async fn ask(
        &self,
        mut question: Question,
        client: Client,
        deadline: Option<Instant>,
        places: Option<Places>,
    ) -> Result<Answers> {
        let reading = Reading::new(&mut question, self.tokenizer());
        let submissions = self.submissions(&mut question, client)?;
        let events = match places {
            Some(places) => self.engine.submit_in(places, submissions)?,
            None => self.engine.submit(submissions)?,
        };
        let mut answers = Answers::new(events, reading, deadline);
        answers.settle().await?;
        Ok(answers)
    }
}

/// Most bytes of a body for a context of this many tokens. A Chinese character that is written as `\u4f60` takes six.
pub fn most_body(context: usize) -> usize {
    (1 << 20) + 16 * context.min(1 << 20)
}

/// Who sends a request: the names under which it is served in turn with others.
pub fn client(peer: Peer, user: Option<&str>) -> Client {
    fn name(of: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        hasher.finish()
    }
    Client { address: name(network(peer.0.ip())), user: name(user) }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_client_is_a_user_at_an_address() {
        let of = |address: &str, user| {
            client(Peer((address.parse::<IpAddr>().unwrap(), 80).into()), user)
        };
        let ann = of("192.0.2.1", Some("ann"));
        assert_eq!(ann, of("::ffff:192.0.2.1", Some("ann")));
        let bob = of("192.0.2.1", Some("bob"));
        assert!(bob.address == ann.address && bob.user != ann.user);
        assert_ne!(of("192.0.2.2", Some("ann")).address, ann.address);
        // A client has all addresses of its network.
        assert_eq!(of("2001:db8::1", None), of("2001:db8::2", None));
        assert_ne!(of("2001:db8::1", None), of("2001:db8:0:1::1", None));
    }
}
