//! The router: which experts a token has, and their weights.

use crate::files::config::Experts;
use crate::limits::config::MAX_EXPERTS;

/// Chooses the experts of a token.
///
/// The score of an expert is the sigmoid of its logit. `bias` is added to it for the choice only: of the groups, those stay whose two
/// largest sums have the largest total; of the experts in them, those with the largest sums are chosen. `chosen` gets their numbers in
/// ascending order, `weights` what their outputs are multiplied with.
pub(crate) fn choose(
    experts: &Experts,
    logits: &[f32],
    bias: &[f32],
    chosen: &mut [u32],
    weights: &mut [f32],
) {
    let (mut scores, mut biased) = ([0.0; MAX_EXPERTS], [0.0; MAX_EXPERTS]);
    let (scores, biased) = (&mut scores[..experts.count], &mut biased[..experts.count]);
    for (((score, biased), logit), bias) in
        scores.iter_mut().zip(&mut *biased).zip(logits).zip(bias)
    {
        *score = 1.0 / (1.0 + libm::expf(-logit));
        let sum = *score + bias;
        // What is not a number is chosen, so that damaged weights show in the logits. −∞ is what cannot be chosen any more.
        *biased = if sum.is_nan() { f32::INFINITY } else { sum.max(f32::MIN) };
    }
    if experts.used_groups < experts.groups {
        drop_groups(experts, biased);
    }
    for chosen in &mut *chosen {
        // Of equal ones the first.
        let best = (0..experts.count)
            .reduce(|best, other| if biased[other] > biased[best] { other } else { best });
        let best = best.unwrap_or_default();
        *chosen = best as u32;
        // It is not chosen again: enough others are left.
        biased[best] = f32::NEG_INFINITY;
    }
    chosen.sort_unstable();
    for (weight, &expert) in weights.iter_mut().zip(&*chosen) {
        *weight = scores[expert as usize];
    }
    let sum = if experts.is_normalized { weights.iter().sum::<f32>() + 1e-20 } else { 1.0 };
    weights.iter_mut().for_each(|weight| *weight = *weight / sum * experts.scale);
}

/// Gives the experts of all groups but the best −∞.
fn drop_groups(experts: &Experts, biased: &mut [f32]) {
    let size = experts.count / experts.groups;
    let total = |group: &[f32]| {
        let mut largest = [f32::NEG_INFINITY; 2];
        for &score in group {
            if score > largest[0] {
                largest = [score, largest[0]];
            } else if score > largest[1] {
                largest[1] = score;
            }
        }
        largest[0] + largest[1]
    };
    let mut totals = [0.0; MAX_EXPERTS];
    let totals = &mut totals[..experts.groups];
    totals.iter_mut().zip(biased.chunks(size)).for_each(|(to, group)| *to = total(group));
    for (index, group) in biased.chunks_mut(size).enumerate() {
        let is_better = |other: usize| {
            let order = totals[other].total_cmp(&totals[index]);
            order.is_gt() || order.is_eq() && other < index
        };
        if (0..experts.groups).filter(|&other| is_better(other)).count() >= experts.used_groups {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// The rows of a pass by the experts that they have.
#[derive(Default)]
pub(crate) struct Routing {
    /// The experts that some row has, in ascending order, each with its number of rows.
    pub(crate) experts: Vec<(usize, usize)>,
    /// The rows of the first of these experts, then those of the second, and so on.
    pub(crate) rows: Vec<u32>,
    /// Where each row is in `rows` for each of its experts, `[rows, used]`
    pub(crate) places: Vec<u32>,
    /// Of all experts, the next place in `rows`.
    next: Vec<u32>,
}

impl Routing {
    /// Sorts the rows whose experts are `chosen`, `[rows, used]`, of `count` experts.
    pub(crate) fn sort(&mut self, chosen: &[u32], count: usize, used: usize) {
        let Self { experts, rows, places, next } = self;
        next.clear();
        next.resize(count, 0);
        chosen.iter().for_each(|&expert| next[expert as usize] += 1);
        experts.clear();
        let mut first = 0;
        for (expert, next) in next.iter_mut().enumerate() {
            let n = std::mem::replace(next, first);
            if n > 0 {
                experts.push((expert, n as usize));
            }
            first += n;
        }
        rows.clear();
        rows.resize(chosen.len(), 0);
        places.clear();
        for (index, &expert) in chosen.iter().enumerate() {
            let place = &mut next[expert as usize];
            rows[*place as usize] = (index / used) as u32;
            places.push(*place);
            *place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn experts(count: usize, used: usize, groups: usize, used_groups: usize) -> Experts {
        Experts {
            count,
            used,
            intermediate_size: 8,
            shared_size: 0,
            groups,
            used_groups,
            is_normalized: true,
            scale: 2.0,
            first_layer: 0,
        }
    }

    fn run(experts: &Experts, logits: &[f32], bias: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let (mut chosen, mut weights) = (vec![9; experts.used], vec![f32::NAN; experts.used]);
        choose(experts, logits, bias, &mut chosen, &mut weights);
        (chosen, weights)
    }

    #[test]
    fn the_bias_counts_for_the_choice_only() {
        let experts = experts(4, 2, 1, 1);
        let (chosen, weights) = run(&experts, &[0.0, 2.0, 1.0, 3.0], &[5.0, 0.0, 0.0, -9.0]);
        assert_eq!(chosen, [0, 1]);
        let [a, b] = [0.5, 1.0 / (1.0 + (-2.0f32).exp())];
        assert!((weights[0] - 2.0 * a / (a + b)).abs() < 1e-6);
        assert!((weights[1] - 2.0 * b / (a + b)).abs() < 1e-6);
        let raw = Experts { is_normalized: false, ..experts };
        assert_eq!(run(&raw, &[0.0; 4], &[0.0; 4]), (vec![0, 1], vec![1.0, 1.0]));
    }

    #[test]
    fn a_group_is_as_good_as_its_two_best_experts() {
        let experts = experts(6, 2, 2, 1);
        // The best expert is in the first group, the better two in the second. All sums are negative.
        let bias = [-1.0, -9.0, -9.0, -2.0, -2.5, -9.0];
        assert_eq!(run(&experts, &[0.0; 6], &bias).0, [3, 4]);
    }

    #[test]
    fn what_is_not_a_number_shows_and_no_expert_is_chosen_twice() {
        for nan in [f32::NAN, -f32::NAN] {
            for (groups, used_groups) in [(1, 1), (2, 1)] {
                let experts = experts(4, 2, groups, used_groups);
                let (chosen, weights) = run(&experts, &[0.0, nan, 1.0, 3.0], &[0.0; 4]);
                assert!(chosen.contains(&1) && weights.iter().any(|weight| weight.is_nan()));
                for (logits, bias) in [
                    ([nan; 4], [0.0; 4]),
                    ([0.0; 4], [f32::NEG_INFINITY; 4]),
                    ([f32::INFINITY, nan, f32::NEG_INFINITY, 0.0], [f32::INFINITY; 4]),
                ] {
                    let (chosen, _) = run(&experts, &logits, &bias);
                    assert!(chosen[0] < chosen[1], "{chosen:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_row_has_a_place_with_each_of_its_experts(
            (count, used, rows, seed) in (1usize..12).prop_flat_map(|count| {
                (Just(count), 1..=count, 0usize..20, any::<u64>())
            }),
        ) {
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 40) as f32 / 1e6 - 8.0
            };
            let experts = experts(count, used, 1, 1);
            let mut chosen = Vec::new();
            for _ in 0..rows {
                let logits: Vec<_> = (0..count).map(|_| next()).collect();
                let (ids, weights) = run(&experts, &logits, &vec![0.0; count]);
                prop_assert!(ids.windows(2).all(|two| two[0] < two[1]), "{:?}", ids);
                prop_assert!((weights.iter().sum::<f32>() - 2.0).abs() < 1e-5);
                chosen.extend(ids);
            }
            let mut routing = Routing::default();
            routing.sort(&chosen, count, used);
            let total: usize = routing.experts.iter().map(|(_, n)| n).sum();
            prop_assert_eq!((total, routing.rows.len()), (chosen.len(), chosen.len()));
            let of_place: Vec<_> =
                routing.experts.iter().flat_map(|&(expert, n)| vec![expert as u32; n]).collect();
            for (index, &place) in routing.places.iter().enumerate() {
                prop_assert_eq!(routing.rows[place as usize] as usize, index / used);
                prop_assert_eq!(of_place[place as usize], chosen[index]);
            }
        }
    }
}
