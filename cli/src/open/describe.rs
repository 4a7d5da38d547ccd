//! Describes an opened model to people.

use glm_model::{Activations, Dialect, Error, Inventory, Model, UnusableDefault};

use crate::args::{self, Source};
use crate::failure;
use crate::messages;
use crate::models::{self, Choice};
use crate::output::note;
use crate::units::bytes;

/// Model, weights, activations, threads and instruction set, in one line.
pub fn summary(args: &args::Model, model: &Model) -> String {
    let activations = match model.activations() {
        Activations::Int8 => "int8",
        Activations::F32 => "f32",
    };
    messages::model_summary(
        title(&args.source, model.inventory()),
        activations,
        model.threads(),
        model.isa().name(),
    )
}

/// The model and its weights.
pub fn title(source: &Source, inventory: &Inventory) -> String {
    let name = match source.choice() {
        Ok(Choice::Folder(found)) => found.name.clone(),
        _ => messages::demo_name(),
    };
    messages::model_title(inventory.config.architecture, name, models::weights(inventory))
}

/// Notes defaults of the model that cannot be used, where they would be.
pub fn note_unusable<'m>(defaults: impl IntoIterator<Item = &'m UnusableDefault>) {
    for UnusableDefault { setting, range, found, .. } in defaults.into_iter().cloned() {
        let problem = Error::Setting { setting, range, found };
        note(&messages::default_is_unusable(failure::message(&problem.into())));
    }
}

/// What `glm quantize` would improve, and what is unusual about the weights.
pub fn remarks(source: &Source, inventory: &Inventory) -> Vec<String> {
    let assumed = inventory.config.assumed;
    let mut remarks: Vec<_> =
        assumed.map(|variant| messages::variant_is_assumed(variant.name())).into_iter().collect();
    if inventory.config.is_text_part() {
        remarks.push(messages::only_text_is_read());
    }
    if inventory.has_prediction_layer {
        remarks.push(messages::prediction_layer_is_left_out());
    }
    let format = models::format(inventory);
    let copied = bytes(inventory.copied_bytes);
    if !inventory.is_quantized {
        let read = bytes(inventory.bytes_per_token);
        let command = quantize(source);
        remarks.push(match format {
            "F32" => messages::weights_are_f32(read, command),
            _ => messages::weights_are_16_bits(format, read, command),
        });
        if inventory.copied_bytes > 0 {
            remarks.push(messages::weights_are_joined(copied));
        }
        if inventory.is_head_tied && inventory.config.dialect == Dialect::ChatGlm {
            remarks.push(messages::head_is_the_embedding());
        }
    } else if inventory.copied_bytes > 0 {
        remarks.push(messages::weights_are_converted(copied, format, quantize(source)));
    }
    remarks
}

/// The command that quantizes the model.
fn quantize(source: &Source) -> String {
    match source.choice() {
        // `glm quantize` knows where models of the caches go.
        Ok(Choice::Folder(found)) if found.stored.is_some() => {
            format!("glm quantize {}", found.name)
        }
        Ok(Choice::Folder(found)) => format!("glm quantize {} DST", found.name),
        _ => "glm quantize SRC DST".to_owned(),
    }
}
