//! The states between layers are those of the model.

use std::path::Path;

use super::*;
use crate::calibrate::sensitivity::Original;
use crate::files::checkpoint::{Checkpoint, Dtype, Format, SafetensorsLayout, TensorSpec};
use crate::files::prefix::TrainedPrefix;
use crate::files::weights::resolve;
use crate::network::hook::HookPoint;
use crate::network::model::{Model, Options};

/// A prefix of some positions for a model like `config`, a ChatGLM-6B.
fn prefix(config: &Config, tokens: usize, projection: bool) -> StoredPrefix {
    let (width, hidden) = (config.layers * 2 * config.kv_heads * config.head_size, config.hidden);
    let tensor = |name: &str, shape: &[usize]| {
        TensorSpec::new(format!("transformer.prefix_encoder.{name}"), Dtype::F32, shape.to_vec())
    };
    let tensors = match projection {
        false => vec![tensor("embedding.weight", &[tokens, width])],
        true => vec![
            tensor("embedding.weight", &[tokens, hidden]),
            tensor("trans.0.weight", &[hidden, hidden]),
            tensor("trans.0.bias", &[hidden]),
            tensor("trans.2.weight", &[width, hidden]),
            tensor("trans.2.bias", &[width]),
        ],
    };
    let layout = SafetensorsLayout::new(&tensors, &[]);
    let mut file = layout.header().to_vec();
    let numbers =
        (0..(layout.file_len() - file.len()) / 4).map(|n| (n * 7919 % 1000) as f32 / 250.0 - 2.0);
    file.extend(numbers.flat_map(f32::to_le_bytes));
    let checkpoint = Checkpoint::from_bytes(Format::Safetensors, file).unwrap();
    StoredPrefix::find(&checkpoint, config, TrainedPrefix { tokens, projection }).unwrap()
}

#[test]
fn the_memory_of_a_prefix_is_that_of_its_rows_and_of_what_is_copied() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/chatglm-6b-tiny/bin-f16");
    let config = Config::open(&folder).unwrap();
    let (hidden, width) = (config.hidden as u64, 2 * (config.layers * config.hidden) as u64);
    let mapped = |_: &StoredMatrix| 0;
    // As many rows as there are positions, or 64 at a time.
    for (tokens, at_a_time) in [(5, 5), (100, 64)] {
        let rows = |prefix: &StoredPrefix, loaded: &dyn Fn(&StoredMatrix) -> u64| {
            let bytes = prefix.bytes(&config, loaded);
            assert_eq!((bytes.positions, bytes.rows), (tokens, 4 * tokens as u64 * width));
            bytes.encoder
        };
        let plain = prefix(&config, tokens, false);
        assert_eq!(rows(&plain, &mapped), 4 * at_a_time * width);
        let projected = prefix(&config, tokens, true);
        let computed = 4 * at_a_time * (hidden + hidden + width);
        assert_eq!(rows(&projected, &mapped), computed);
        let weights = 4 * hidden * (tokens as u64 + hidden + width);
        assert_eq!(rows(&projected, &StoredMatrix::loaded_bytes), computed + weights);
    }
}

/// Also behind a trained prefix.
#[test]
fn states_are_those_of_the_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/chatglm-6b-tiny/bin-f16");
    let config = Config::open(&folder).unwrap();
    let network = resolve(&config, &Checkpoint::open(&folder).unwrap()).unwrap().network;
    let calibration = Calibration::without_texts(&config);
    let (isa, activations) = (Isa::choose().unwrap(), Activations::F32);
    let options = Options { threads: Some(2), ..Options::default() };
    let model = Model::open(folder, &options).unwrap();
    let mut last = Vec::new();
    let prefixes = [None, Some(prefix(&config, 5, false)), Some(prefix(&config, 70, true))];
    for stored in prefixes {
        let adapter = stored.as_ref().map(|stored| model.load_adapter(stored).unwrap());
        let model = model.with_adapter(adapter.as_ref()).unwrap();
        let ids = &calibration.texts()[0];
        let mut expected = Vec::new();
        let mut hook = |point, rows: &crate::HookRows<'_>| {
            if let HookPoint::Layer(_) = point {
                expected.push(rows.values().to_vec());
            }
        };
        let mut sequence = model.sequence(Some(ids.len())).unwrap();
        let mut workspace = model.workspace().unwrap();
        let mut chunks = [Chunk::all(&mut sequence, ids)];
        model.run(&mut workspace, &mut chunks, RunOptions::default().with_hook(&mut hook)).unwrap();

        let prefix = stored.as_ref();
        let layers =
            Layers::new(&network, &config, prefix, &calibration, isa, activations, &Original);
        let mut layers = layers.unwrap();
        layers.embed(&network, &Original).unwrap();
        let going = &mut |_: f32| ControlFlow::Continue(());
        for (index, (layer, expected)) in network.layers.iter().zip(&expected).enumerate() {
            layers.enter(index, layer, &Original).unwrap();
            for (role, linear) in layer.linears() {
                layers.replace(role, linear.weight.load().unwrap());
            }
            layers.inputs(LinearRole::Up, None, going).unwrap();
            layers.finish(going).unwrap();
            let states = &layers.states_mut()[0];
            assert_eq!(states.len(), expected.len());
            let error = states.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-3, "layer {index}: {error}");
        }
        assert_eq!(expected.len(), network.layers.len());
        last.push(expected.pop().unwrap());
    }
    // The prefix makes a difference.
    for with_prefix in &last[1..] {
        assert!(last[0].iter().zip(with_prefix).any(|(a, b)| (a - b).abs() > 0.1));
    }
}
