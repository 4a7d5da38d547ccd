//! Where a model is.

use std::path::{Path, PathBuf};

use crate::files::variant::Variant;

/// The folder of a model, and what its files may not say. A path converts to it:
///
/// ```no_run
/// use glm_model::{ModelPath, Tokenizer, Variant};
///
/// let tokenizer = Tokenizer::open("chatglm3-6b")?;
/// let other = Tokenizer::open(ModelPath::new("fine-tuned").of_variant(Some(Variant::ChatGlm2)))?;
/// # Ok::<(), glm_model::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPath {
    path: PathBuf,
    variant: Option<Variant>,
}

impl ModelPath {
    /// The model in this folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), variant: None }
    }

    /// The same folder, with the answer to the question which [`Variant`] is in it. With `None`, its files decide.
    #[must_use]
    pub fn of_variant(self, variant: Option<Variant>) -> Self {
        Self { variant, ..self }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The variant, if it was given.
    pub fn variant(&self) -> Option<Variant> {
        self.variant
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for ModelPath {
    fn from(path: &P) -> Self {
        Self::new(path.as_ref())
    }
}

impl From<PathBuf> for ModelPath {
    fn from(path: PathBuf) -> Self {
        Self::new(path)
    }
}

impl From<String> for ModelPath {
    fn from(path: String) -> Self {
        Self::new(path)
    }
}
