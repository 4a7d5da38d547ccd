//! A model with the tokenizer and the chat template that belong to it.

use std::sync::Arc;

use crate::error::Result;
use crate::files::model_path::ModelPath;
use crate::generate::generation::Request;
use crate::network::adapter::Adapter;
use crate::network::model::{Model, Options};
use crate::text::chat::Template;
use crate::text::tokenizer::Tokenizer;

/// A model, its tokenizer and its chat template, checked against each other. A clone is the same bundle.
///
/// ```no_run
/// use glm_model::{Bundle, Conversation, ConversationOptions, Options};
///
/// let bundle = Bundle::open("chatglm-6b-int4", &Options::default())?;
/// let options = ConversationOptions::new(bundle.request(7));
/// let mut conversation = Conversation::new(&bundle, options)?;
/// let answer = conversation.ask("你好")?.finish()?;
/// println!("{}", answer.text);
/// # Ok::<(), glm_model::Error>(())
/// ```
#[derive(Clone)]
pub struct Bundle {
    model: Model,
    text: Arc<Text>,
}

struct Text {
    tokenizer: Tokenizer,
    template: Template,
}

impl Bundle {
    /// Opens the model, the tokenizer and the template in a folder.
    ///
    /// # Errors
    /// As [`Model::open`], [`Tokenizer::open`], [`Template::open`] and [`Model::check_tokenizer`].
    pub fn open(dir: impl Into<ModelPath>, options: &Options) -> Result<Self> {
        Self::open_with_progress(dir, options, &mut |_, _| {})
    }

    /// As [`Bundle::open`]; `progress` as in [`Model::open_with_progress`].
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn open_with_progress(
        dir: impl Into<ModelPath>,
        options: &Options,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Self> {
        let dir = dir.into();
        // The small files first: an error in them should not come after minutes of loading.
        let tokenizer = Tokenizer::open(dir.clone())?;
        let template = Template::open(dir.clone(), &tokenizer)?;
        Self::new(Model::open_with_progress(dir, options, progress)?, tokenizer, template)
    }

    /// A bundle of parts that are open already.
    ///
    /// # Errors
    /// If the tokenizer belongs to another model or template: see [`Model::check_tokenizer`] and
    /// [`Template::check_tokenizer`].
    pub fn new(model: Model, tokenizer: Tokenizer, template: Template) -> Result<Self> {
        model.check_tokenizer(&tokenizer)?;
        template.check_tokenizer(&tokenizer)?;
        Ok(Self { model, text: Arc::new(Text { tokenizer, template }) })
    }

    /// The same bundle with another adapter of the model, or with none: see [`Model::with_adapter`].
    ///
    /// # Errors
    /// If the adapter belongs to another model.
    pub fn with_adapter(&self, adapter: Option<&Adapter>) -> Result<Self> {
        Ok(Self { model: self.model.with_adapter(adapter)?, text: Arc::clone(&self.text) })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.text.tokenizer
    }

    /// How its conversations are written.
    pub fn template(&self) -> &Template {
        &self.text.template
    }

    /// A request for an answer in a conversation: ids are sampled as the model's authors do it, and the answer ends with one of
    /// the end ids of the model or the template.
    pub fn request(&self, seed: u64) -> Request {
        Request::chat(self.model(), seed).ending_as(self.template(), self.tokenizer())
    }
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::demo;

    #[test]
    fn a_bundle_is_shared_between_threads() {
        fn is_shared<T: Clone + Send + Sync>(_: &T) {}
        let bundle = demo::bundle(&Options::default()).unwrap();
        is_shared(&bundle);
        let clone = bundle.clone();
        assert!(std::ptr::eq(bundle.tokenizer(), clone.tokenizer()));
        let ends = bundle.template().stop_ids(bundle.tokenizer());
        assert!(ends.iter().all(|end| bundle.request(0).stop_ids.contains(end)));
    }

    #[test]
    fn a_bundle_of_a_folder_is_that_of_its_parts() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut steps = 0;
        let mut count = |_, _| steps += 1;
        let bundle =
            Bundle::open_with_progress(root.join("demo/int4"), &Options::default(), &mut count);
        assert_eq!(bundle.unwrap().template().name(), "chatglm");
        assert!(steps > 0);
        assert!(Bundle::open(root.join("nowhere"), &Options::default()).is_err());
    }

    #[test]
    fn the_tokenizer_of_another_model_is_refused() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let model =
            Model::open(root.join("tests/models/chatglm-6b-tiny/int4"), &Options::default());
        let tokenizer = demo::tokenizer().unwrap();
        let template = demo::template(&tokenizer).unwrap();
        let error = Bundle::new(model.unwrap(), tokenizer, template).err().unwrap();
        assert_eq!(error.code(), "ids");
    }
}
