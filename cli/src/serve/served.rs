//! The model that is served: requests become prompts, and prompts answers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use glm_model::{
    BatchOptions, Bundle, Error, Model, Request, SpecialNames, Submission, Template, Tokenizer,
    check_prompt,
};
use tokio::sync::Semaphore;

use super::answer::{Answers, Reader};
use super::engine::Engine;
use super::error::{ApiError, Result};
use super::listen::Peer;
use super::{App, Phase};
use crate::args;
use crate::models::Choice;
use crate::open;

/// Requests whose texts are encoded at the same time.
const ENCODING: usize = 2;

/// Most alternatives of a token.
pub const MOST_LOGPROBS: usize = 20;

/// The model that is served.
pub struct Served {
    /// It lives as long as the process.
    bundle: &'static Bundle,
    /// How a text that is continued becomes a prompt.
    plain: Template,
    engine: Engine,
    context: usize,
    /// The name of the model, and others for it.
    names: Vec<String>,
    created: u64,
    /// What names of special tokens in messages are.
    special_names: SpecialNames,
    encoding: Semaphore,
}

/// What is asked of the model.
pub struct Question {
    pub prompts: Vec<Vec<u32>>,
    /// Answers to each prompt.
    pub choices: usize,
    pub request: Request,
    /// How each choice of each prompt is read.
    pub readers: Vec<Reader>,
    pub client: u64,
    pub deadline: Option<Instant>,
}

impl Served {
    /// Opens the model and starts the engine.
    ///
    /// # Errors
    /// If the model cannot be opened, or a flag does not fit it.
    pub fn open(args: &args::Serve, app: &Arc<App>) -> anyhow::Result<Self> {
        let mut options = BatchOptions::default();
        options.max_sequences = args.max_sequences;
        options.cache_bytes = args.cache_memory;
        let mut of_model = args.model.options();
        of_model.kv_budget = args.kv_memory;
        let bundle = open::bundle_with(&args.model, args.template.as_deref(), &of_model)?;
        let context = bundle.model().sequence(args.context)?.capacity();
        let failed = {
            let app = Arc::clone(app);
            move || {
                let _ = app.failure.set(());
                app.phase.send_replace(Phase::Draining);
            }
        };
        let metrics = app.metrics.clone();
        let engine = Engine::start(bundle.model(), options, args.queue, metrics, failed)?;
        let name = match args.model.source.choice()? {
            Choice::Folder(found) if found.stored.is_some() => found.name.clone(),
            Choice::Folder(found) => {
                let name = found.folder.canonicalize().unwrap_or_else(|_| found.folder.clone());
                name.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Choice::Demo => "demo".to_owned(),
        };
        Ok(Self {
            bundle: Box::leak(Box::new(bundle)),
            plain: Template::named("plain")?,
            engine,
            context,
            names: [&[name], &args.alias[..]].concat(),
            created: now(),
            special_names: match args.special_tokens_in_text {
                true => SpecialNames::Ids,
                false => SpecialNames::Text,
            },
            encoding: Semaphore::new(ENCODING),
        })
    }

    pub fn bundle(&self) -> &'static Bundle {
        self.bundle
    }

    pub fn model(&self) -> &'static Model {
        self.bundle.model()
    }

    pub fn tokenizer(&self) -> &'static Tokenizer {
        self.bundle.tokenizer()
    }

    /// How a text that is continued becomes a prompt.
    pub fn plain(&self) -> &Template {
        &self.plain
    }

    pub fn name(&self) -> &str {
        &self.names[0]
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the model was opened, in seconds of Unix.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Tokens of a context.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Ends all answers.
    pub fn stop(&self) {
        self.engine.stop();
    }

    /// What names of special tokens in messages are.
    pub fn special_names(&self) -> SpecialNames {
        self.special_names
    }

    /// Checks that a request is for this model.
    ///
    /// # Errors
    /// If it names another.
    pub fn check_name(&self, name: Option<&str>) -> Result<()> {
        match name {
            Some(name) if !self.names.iter().any(|own| own == name) => {
                let problem = format!(
                    "this server has the model {} only; --alias gives it other names",
                    self.name()
                );
                let status = axum::http::StatusCode::NOT_FOUND;
                Err(ApiError::new(status, problem).with_code("model_not_found").with_param("model"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that so many answers can be generated.
    ///
    /// # Errors
    /// If they are more than can be generated at the same time.
    pub fn check_answers(&self, count: usize) -> Result<()> {
        let most = self.engine.most();
        match count > most {
            true => Err(ApiError::field(
                "n",
                format!("{count} answers are asked for, and {most} are the most of this server"),
            )),
            false => Ok(()),
        }
    }

    /// Does work on texts, which may take long, without holding up connections.
    pub async fn encode<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // The semaphore is never closed.
        let _place = self.encoding.acquire().await;
        tokio::task::block_in_place(work)
    }

    /// The answers to a question.
    ///
    /// # Errors
    /// If a prompt cannot be answered, or too many requests wait.
    pub async fn ask(&self, question: Question) -> Result<Answers> {
        let Question { prompts, choices, request, readers, client, deadline } = question;
        self.check_answers(readers.len())?;
        prompts.iter().try_for_each(|prompt| self.check_prompt(prompt))?;
        let tokens = prompts.iter().map(Vec::len).sum();
        let submissions = prompts.into_iter().map(|prompt| {
            let mut submission = Submission::new(prompt, request.clone());
            submission.choices = choices;
            submission.context = Some(self.context);
            submission.client = client;
            submission
        });
        let events = self.engine.submit(submissions.collect())?;
        let mut answers =
            Answers::new(events, choices, readers, tokens, self.tokenizer(), deadline);
        answers.settle().await?;
        Ok(answers)
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        check_prompt(self.model(), prompt, self.context)?;
        let vocab = self.model().config().vocab;
        match prompt.iter().find(|&&id| id as usize >= vocab) {
            Some(id) => Err(Error::Ids(format!("{id} is no id: the model has {vocab}")).into()),
            None => Ok(()),
        }
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

/// Seconds of Unix.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A name of its own for a response.
pub fn response_id(kind: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    let [high, low] = [(); 2].map(|()| RandomState::new().hash_one(now()));
    format!("{kind}-{high:016x}{low:016x}")
}
