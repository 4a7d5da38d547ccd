//! The model that answers requests.

#[cfg(feature = "grammar")]
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "grammar")]
use glm_model::GrammarCompiler;
use glm_model::{
    Adapter, Bundle, Client, Error, Model, PromptOptions, Request, SpecialNames, Submission,
    Template, Tokenizer, check_prompt,
};

use super::answer::Reader;
use super::error::{ApiError, Result, TOO_MANY_ANSWERS};
use super::form::Form;
use crate::args;
use crate::limits::request::MOST_SEQUENCES;
use crate::models::Choice;
use crate::open;

/// The model that answers requests.
pub struct ApiModel {
    /// It lives as long as the process.
    bundle: &'static Bundle,
    /// How a text that is continued becomes a prompt.
    plain: Template,
    context: usize,
    /// The name of the model, others for it, and those of the adapters.
    names: Vec<String>,
    /// The adapters, for the last of the names.
    adapters: Vec<Adapter>,
    created: u64,
    /// What names of special tokens in messages are.
    special_names: SpecialNames,
    /// Whether the model thinks where a request does not say.
    thinking: Option<bool>,
    /// Most answers to a request.
    most_answers: usize,
    /// Made when the first request needs it.
    #[cfg(feature = "grammar")]
    grammars: OnceLock<GrammarCompiler>,
}

/// What is asked of the model.
pub struct Question {
    pub prompts: Vec<Vec<u32>>,
    /// What the prompts begin with, if the request names an adapter.
    pub adapter: Option<Adapter>,
    /// Answers to each prompt.
    pub choices: usize,
    pub request: Request,
    /// The form of the answers, until [`ApiModel::constrain`] has compiled it.
    pub form: Option<Form>,
    /// How each choice of each prompt is read.
    pub readers: Vec<Reader>,
}

impl ApiModel {
    /// Opens the model under its own name and others.
    ///
    /// # Errors
    /// If it cannot be opened, or a flag does not fit it.
    pub fn open(
        model: &args::Model,
        flags: &args::Api,
        most_answers: usize,
    ) -> anyhow::Result<Self> {
        let mut options = model.options();
        options.kv_budget = match flags.kv_memory {
            Some(bytes) => Some(bytes),
            None => open::kv_budget(&model.source)?,
        };
        let bundle = open::bundle(model, flags.template.as_deref(), &options)?;
        let mut prompts = PromptOptions::default();
        prompts.thinking = flags.thinking.think;
        bundle.template().check_prompt_options(prompts)?;
        // Any request may leave a setting to the model.
        open::note_unusable(&bundle.model().config().unusable_defaults);
        let context = bundle.model().sequence(flags.context)?.capacity();
        let name = match model.source.choice()? {
            Choice::Folder(found) if !found.is_path() => found.name.clone(),
            Choice::Folder(found) => {
                let name = found.folder.canonicalize().unwrap_or_else(|_| found.folder.clone());
                name.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Choice::Demo => "demo".to_owned(),
        };
        let mut names = [&[name], &flags.alias[..]].concat();
        let adapters = open::named_adapters(model, bundle.model(), &names)?;
        let (of_adapters, adapters): (Vec<_>, _) = adapters.into_iter().unzip();
        names.extend(of_adapters);
        Ok(Self {
            bundle: Box::leak(Box::new(bundle)),
            plain: Template::named("plain")?,
            context,
            names,
            adapters,
            created: now(),
            special_names: match flags.special_tokens_in_text {
                true => SpecialNames::Ids,
                false => SpecialNames::Text,
            },
            thinking: flags.thinking.think,
            most_answers,
            #[cfg(feature = "grammar")]
            grammars: OnceLock::new(),
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

    /// The adapters that requests can name.
    pub fn adapters(&self) -> impl Iterator<Item = (&str, &Adapter)> {
        let first = self.names.len() - self.adapters.len();
        self.names[first..].iter().map(String::as_str).zip(&self.adapters)
    }

    /// When the model was opened, in seconds of Unix.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Tokens of a context.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What names of special tokens in messages are.
    pub fn special_names(&self) -> SpecialNames {
        self.special_names
    }

    /// Whether the model thinks where a request does not say; `None` leaves it to the template.
    pub fn thinking(&self) -> Option<bool> {
        self.thinking
    }

    /// What makes constraints of grammars.
    ///
    /// # Errors
    /// If the model has no ids that end answers.
    #[cfg(feature = "grammar")]
    pub fn grammars(&self) -> Result<&GrammarCompiler> {
        if let Some(grammars) = self.grammars.get() {
            return Ok(grammars);
        }
        let ends = self.bundle.request(0).stop_ids;
        let made = GrammarCompiler::new(self.tokenizer(), self.bundle.template(), &ends)?;
        Ok(self.grammars.get_or_init(|| made))
    }

    /// The name of what answers a request: its adapter's if it names one, or that of the model.
    pub fn answering_name(&self, asked: Option<&str>) -> &str {
        let adapter = self.adapters().map(|(name, _)| name).find(|name| asked == Some(name));
        adapter.unwrap_or(self.name())
    }

    /// Checks that a request is for this model. Returns the adapter if it names one.
    ///
    /// # Errors
    /// If it names another model.
    pub fn adapter(&self, name: Option<&str>) -> Result<Option<Adapter>> {
        let Some(name) = name else { return Ok(None) };
        let first = self.names.len() - self.adapters.len();
        match self.names.iter().position(|own| own == name) {
            Some(index) => Ok(index.checked_sub(first).map(|index| self.adapters[index].clone())),
            None => {
                let problem = match &self.names[..] {
                    [name] => format!("the model here is {name}; --alias gives it other names"),
                    names => format!(
                        "the names here are {}; --alias and --adapter give more",
                        names.join(", ")
                    ),
                };
                let status = http::StatusCode::NOT_FOUND;
                Err(ApiError::new(status, problem).with_code("model_not_found").with_param("model"))
            }
        }
    }

    /// Checks that so many answers to so many prompts can be generated.
    ///
    /// # Errors
    /// If they are more than can be generated at the same time. The field is `prompt` if the prompts alone are too many, else `n`.
    pub fn check_answers(&self, prompts: usize, choices: usize) -> Result<()> {
        let (allowed, count) = (self.most_answers, prompts.saturating_mul(choices));
        if count <= allowed {
            return Ok(());
        }
        let asked = match prompts {
            1 => format!("n is {choices}"),
            _ => format!("{prompts} prompts with n = {choices} need {count} answers"),
        };
        let is_possible = count as u64 <= MOST_SEQUENCES;
        let most = if is_possible { allowed as u64 } else { MOST_SEQUENCES };
        let field = if prompts as u64 > most { "prompt" } else { "n" };
        let problem = format!("{asked}, and a request can have at most {most}");
        if !is_possible {
            return Err(ApiError::field(field, problem));
        }
        let problem = format!("{problem}: start glm with a larger --max-sequences");
        Err(ApiError::field(field, problem).with_code(TOO_MANY_ANSWERS))
    }

    pub fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        check_prompt(self.model(), prompt, self.context)?;
        let vocab = self.model().config().vocab;
        match prompt.iter().find(|&&id| id as usize >= vocab) {
            Some(id) => Err(Error::Ids(format!("{id} is no id: the model has {vocab}")).into()),
            None => Ok(()),
        }
    }

    /// Compiles the form of the answers to a question, if it asks for one. That may take long.
    ///
    /// # Errors
    /// If the form is not valid or exceeds a limit, or the model cannot answer in it.
    pub fn constrain(&self, question: &mut Question) -> Result<()> {
        if let (Some(form), [prompt, ..]) = (question.form.take(), &question.prompts[..]) {
            question.request.constraint = Some(form.constraint(self, prompt)?);
        }
        Ok(())
    }

    /// The prompts of a question for a batch. Its form is compiled already.
    ///
    /// # Errors
    /// If a prompt is empty, too long, or has ids that the model does not have.
    pub fn submissions(&self, question: &mut Question, client: Client) -> Result<Vec<Submission>> {
        debug_assert!(question.form.is_none(), "a form that nobody has compiled");
        question.prompts.iter().try_for_each(|prompt| self.check_prompt(prompt))?;
        let submissions = std::mem::take(&mut question.prompts).into_iter().map(|prompt| {
            let mut submission = Submission::new(prompt, question.request.clone());
            submission.choices = question.choices;
            submission.context = Some(self.context);
            submission.adapter.clone_from(&question.adapter);
            submission.client = client;
            submission
        });
        Ok(submissions.collect())
    }
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
