//! Predictions → perplexity and divergence of a text.

use super::compare::{Compared, Prediction};

/// How well a text was predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// Predicted tokens.
    pub tokens: usize,
    /// Negative natural logarithm of the probability of a token. Its exponential is the perplexity.
    pub loss: Mean,
    /// Comparison with the reference, if there was one.
    pub compared: Option<Divergence>,
}

/// How far predictions are from those of a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Divergence {
    /// The loss of the reference.
    pub loss: Mean,
    /// Loss of the model less that of the reference.
    pub loss_added: Mean,
    /// Kullback-Leibler divergence from the reference in nats.
    pub mean: Mean,
    /// Half of the tokens have at most this divergence.
    pub median: f64,
    /// 99 % of the tokens have at most this divergence.
    pub percentile_99: f64,
    /// The largest divergence.
    pub largest: f64,
    /// Part of the tokens at which both have the same likeliest id.
    pub same_top: Mean,
}

/// A mean and its standard error, if the tokens were independent.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its standard error; 0 for a single token.
    pub error: f64,
}

impl Perplexity {
    /// `None` if there are no predictions. Only if all have a comparison, there is one of the text.
    pub fn of(predictions: &[Prediction]) -> Option<Self> {
        if predictions.is_empty() {
            return None;
        }
        let loss = Mean::of(predictions.iter().map(|prediction| prediction.loss));
        let compared: Option<Vec<_>> = predictions.iter().map(|one| one.compared).collect();
        let compared = compared.map(|compared| Divergence::of(predictions, &compared));
        Some(Self { tokens: predictions.len(), loss, compared })
    }

    /// The perplexity: the exponential of the mean loss.
    pub fn perplexity(&self) -> f64 {
        libm::exp(self.loss.mean)
    }
}

impl Divergence {
    fn of(predictions: &[Prediction], compared: &[Compared]) -> Self {
        let mut sorted: Vec<_> = compared.iter().map(|one| one.divergence).collect();
        sorted.sort_by(f64::total_cmp);
        let part = |part: f64| sorted[((sorted.len() - 1) as f64 * part).ceil() as usize];
        let added = predictions.iter().zip(compared).map(|(model, one)| model.loss - one.loss);
        Self {
            loss: Mean::of(compared.iter().map(|one| one.loss)),
            loss_added: Mean::of(added),
            mean: Mean::of(sorted.iter().copied()),
            median: part(0.5),
            percentile_99: part(0.99),
            largest: part(1.0),
            same_top: Mean::of(compared.iter().map(|one| f64::from(u8::from(one.is_top_same)))),
        }
    }
}

impl Mean {
    fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let count = values.len() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
        let variance = if count > 1.0 { squares / (count - 1.0) } else { 0.0 };
        Self { mean, error: (variance / count).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_summed_up() {
        let one = |loss, of_reference, divergence, is_top_same| Prediction {
            loss,
            compared: Some(Compared { loss: of_reference, divergence, is_top_same }),
        };
        let all = [
            one(1.0, 0.5, 0.3, true),
            one(2.0, 2.5, 0.1, false),
            one(3.0, 2.0, 0.2, true),
            one(2.0, 2.0, 0.0, true),
        ];
        let found = Perplexity::of(&all).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        assert_eq!(found.tokens, 4);
        close(found.loss.mean, 2.0);
        close(found.loss.error, (2.0f64 / 3.0 / 4.0).sqrt());
        close(found.perplexity(), 2f64.exp());
        let compared = found.compared.unwrap();
        close(compared.loss.mean, 1.75);
        close(compared.loss_added.mean, 0.25);
        close(compared.mean.mean, 0.15);
        close(compared.same_top.mean, 0.75);
        assert_eq!((compared.median, compared.percentile_99, compared.largest), (0.2, 0.3, 0.3));
        assert!(Perplexity::of(&[]).is_none());
        let alone = Perplexity::of(&[Prediction { loss: 1.0, compared: None }]).unwrap();
        assert_eq!((alone.loss.error, alone.compared), (0.0, None));
    }
}
