//! The model that is served: requests become prompts, and prompts answers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use glm_model::{BatchOptions, CancelToken, MaskKind};

use super::answer::{Answers, Reading};
use super::encoding::Encoding;
use super::engine::Engine;
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

    /// Saves the cache, if there is a file for it. There are no answers any more.
    ///
    /// # Errors
    /// If the file cannot be written, or `cancel` asks for the end before it is.
    pub async fn end(&self, cancel: &CancelToken) -> glm_model::Result<()> {
        self.engine.end(cancel).await
    }

    /// Where texts are worked on before an answer.
    pub fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// The answers to a question.
    ///
    /// # Errors
    /// If a prompt cannot be answered, or too many requests wait.
    pub async fn ask(
        &self,
        mut question: Question,
        client: u64,
        deadline: Option<Instant>,
    ) -> Result<Answers> {
        let reading = Reading::new(&mut question, self.tokenizer());
        let events = self.engine.submit(self.submissions(&mut question, client)?)?;
        let mut answers = Answers::new(events, reading, deadline);
        answers.settle().await?;
        Ok(answers)
    }
}

/// Most bytes of a body for a context of this many tokens. A Chinese character that is written as `\u4f60` takes six.
pub fn most_body(context: usize) -> usize {
    (1 << 20) + 16 * context.min(1 << 20)
}

/// The key under which the engine serves a client in turn with others.
pub fn client(peer: Peer, user: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (peer.0.ip(), user).hash(&mut hasher);
    hasher.finish()
}
