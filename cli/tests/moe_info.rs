//! What `glm info` and `glm quantize` say of a model with experts.

#![allow(missing_docs)]

mod common;
#[path = "../../model/tests/common/experts.rs"]
mod experts;
#[path = "../../model/tests/common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "../../model/tests/common/stored.rs"]
mod stored;
#[path = "../../model/tests/common/tensors.rs"]
mod tensors;

use common::{glm, json, stderr, stdout, text};
use experts::{Kind, tiny};

#[test]
fn the_experts_of_a_model_are_described() {
    let dir = tiny(Kind::Latent);
    let model = text(dir.path());
    let said = json(&["info", "-m", &model, "--json"]);
    let weights = &said["weights"];
    let [all, experts, tables] =
        ["bytes", "experts", "tables"].map(|name| weights[name].as_u64().unwrap());
    assert_eq!((&said["experts"]["count"], &said["experts"]["used"]), (&6.into(), &2.into()));
    assert_eq!(said["bytes_per_token"], all - tables - experts / 6 * 4);
    let output = glm(&["info", "-m", &model]).output().unwrap();
    let said = stdout(&output);
    for part in [
        "6 in each layer from layer 2 on, 2 of them for a token",
        "are experts, of which each token reads some",
        "latent attention",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let all = format!("{said}{}", stderr(&output));
    assert!(all.contains("multi-token prediction"), "{all}");

    // The prediction layer is not copied, and no longer spoken of.
    let target = dir.path().join("int4");
    let output = glm(&["quantize", &model, &text(&target), "--group", "32"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let output = glm(&["info", "-m", &text(&target)]).output().unwrap();
    let all = format!("{}{}", stdout(&output), stderr(&output));
    assert!(all.contains("INT4") && !all.contains("multi-token prediction"), "{all}");
}
