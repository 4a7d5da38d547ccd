//! The states between layers are those of the model.

use std::path::Path;

use super::*;
use crate::calibrate::sensitivity::Original;
use crate::files::checkpoint::{Checkpoint, Dtype, Format, SafetensorsLayout, TensorSpec};
use crate::files::prefix::TrainedPrefix;
use crate::files::weights::resolve;
use crate::network::hook::HookPoint;
use crate::network::model::{Model, Options};

/// A prefix of some positions for a model like `config`.
fn prefix(config: &Config, tokens: usize) -> StoredPrefix {
    let width = config.layers * 2 * config.kv_heads * config.head_size;
    let name = "transformer.prefix_encoder.embedding.weight";
    let layout = SafetensorsLayout::new(&[TensorSpec::new(name, Dtype::F32, [tokens, width])], &[]);
    let mut file = layout.header().to_vec();
    let numbers = (0..tokens * width).map(|n| (n * 7919 % 1000) as f32 / 250.0 - 2.0);
    file.extend(numbers.flat_map(f32::to_le_bytes));
    let checkpoint = Checkpoint::from_bytes(Format::Safetensors, file).unwrap();
    StoredPrefix::find(&checkpoint, config, TrainedPrefix { tokens, projection: false }).unwrap()
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
    for stored in [None, Some(prefix(&config, 5))] {
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
    assert!(last[0].iter().zip(&last[1]).any(|(a, b)| (a - b).abs() > 0.1));
}
