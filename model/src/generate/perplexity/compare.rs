//! Logits of a token → how well it was predicted.

use crate::error::{Error, Result};

/// A predicted token.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Prediction {
    /// Negative natural logarithm of its probability.
    pub loss: f64,
    /// Comparison with the reference, if there is one.
    pub compared: Option<Compared>,
}

/// A prediction beside that of the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Compared {
    /// The loss of the reference.
    pub loss: f64,
    /// Kullback-Leibler divergence of the model's distribution from the reference's, in nats: the sum over all ids of
    /// `p · ln(p / q)`, with `p` of the reference and `q` of the model.
    pub divergence: f64,
    /// Whether both have the same likeliest id.
    pub is_top_same: bool,
}

/// The prediction of `id` by `logits`, compared with logits of a reference for the same token.
pub(super) fn prediction(logits: &[f32], id: u32, reference: Option<&[f32]>) -> Result<Prediction> {
    let model = Softmax::of(logits)?;
    let compared = match reference {
        None => None,
        Some(reference) => {
            let other = Softmax::of(reference)?;
            Some(Compared {
                loss: other.loss(reference, id),
                divergence: divergence(reference, &other, logits, &model),
                is_top_same: model.top == other.top,
            })
        }
    };
    Ok(Prediction { loss: model.loss(logits, id), compared })
}

/// The divergence of the distribution of `logits` from that of the logits `reference`: see [`Compared::divergence`].
///
/// # Errors
/// If a logit is not finite.
pub(crate) fn kl_divergence(reference: &[f32], logits: &[f32]) -> Result<f64> {
    Ok(divergence(reference, &Softmax::of(reference)?, logits, &Softmax::of(logits)?))
}

/// What the softmax of logits is computed from.
struct Softmax {
    max: f32,
    /// The first id with the largest logit.
    top: usize,
    /// Sum of `exp(logit - max)`.
    sum: f64,
}

impl Softmax {
    fn of(logits: &[f32]) -> Result<Self> {
        let (mut top, mut max) = (0, f32::NEG_INFINITY);
        for (id, &logit) in logits.iter().enumerate() {
            if !logit.is_finite() {
                return Err(Error::NotFinite);
            }
            if logit > max {
                (top, max) = (id, logit);
            }
        }
        let sum = logits.iter().map(|&logit| f64::from(libm::expf(logit - max))).sum();
        Ok(Self { max, top, sum })
    }

    fn log_sum(&self) -> f64 {
        f64::from(self.max) + libm::log(self.sum)
    }

    /// Infinite for an id that the model does not have.
    fn loss(&self, logits: &[f32], id: u32) -> f64 {
        logits.get(id as usize).map_or(f64::INFINITY, |&logit| self.log_sum() - f64::from(logit))
    }
}

/// `Σ p · (ln p − ln q)`
fn divergence(p: &[f32], of_p: &Softmax, q: &[f32], of_q: &Softmax) -> f64 {
    // The differences of the logits, weighted, and then the difference of the logarithms of the sums.
    let terms = p
        .iter()
        .zip(q)
        .map(|(&p, &q)| f64::from(libm::expf(p - of_p.max)) * (f64::from(p) - f64::from(q)));
    let difference = terms.sum::<f64>() / of_p.sum;
    // Rounding may make the divergence of equal distributions negative.
    (difference - (of_p.log_sum() - of_q.log_sum())).max(0.0)
}

/// Checks that distributions over two vocabularies can be compared.
pub(super) fn check_vocab(model: usize, reference: usize) -> Result<()> {
    if model == reference {
        return Ok(());
    }
    let problem = format!(
        "the model has {model} ids and the reference {reference}: only models with the same vocabulary can be compared"
    );
    Err(Error::Ids(problem))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        logits.iter().map(|&l| f64::from(l).exp() / sum).collect()
    }

    proptest! {
        #[test]
        fn divergence_and_loss_are_as_defined(
            (p, q) in (2usize..50).prop_flat_map(|n| {
                let logits = || prop::collection::vec(-20f32..20.0, n);
                (logits(), logits())
            }),
            id in any::<prop::sample::Index>(),
        ) {
            let id = id.index(p.len());
            let found = prediction(&q, id as u32, Some(&p)).unwrap();
            let compared = found.compared.unwrap();
            let (p, q) = (softmax(&p), softmax(&q));
            let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
            prop_assert!((compared.divergence - expected).abs() < 1e-5 * (1.0 + expected), "{} {expected}", compared.divergence);
            prop_assert!((found.loss + q[id].ln()).abs() < 1e-5);
            prop_assert!((compared.loss + p[id].ln()).abs() < 1e-5);
        }

        #[test]
        fn equal_distributions_do_not_diverge(p in prop::collection::vec(-20f32..20.0, 1..50), shift in -5f32..5.0) {
            let q: Vec<f32> = p.iter().map(|p| p + shift).collect();
            let compared = prediction(&q, 0, Some(&p)).unwrap().compared.unwrap();
            prop_assert!(compared.divergence < 1e-5, "{compared:?}");
        }
    }

    #[test]
    fn vocabularies_must_have_the_same_size() {
        assert!(check_vocab(5, 5).is_ok());
        let error = check_vocab(5, 6).unwrap_err().to_string();
        assert!(error.contains("has 5 ids") && error.contains("same vocabulary"), "{error}");
    }

    #[test]
    fn what_is_not_finite_is_an_error() {
        assert!(prediction(&[f32::NAN, 0.0], 1, None).is_err());
        assert!(prediction(&[f32::INFINITY, 0.0], 1, None).is_err());
        assert!(prediction(&[0.0, 0.0], 1, Some(&[0.0, f32::NAN])).is_err());
        assert_eq!(prediction(&[0.0, 0.0], 2, None).unwrap().loss, f64::INFINITY);
    }
}
