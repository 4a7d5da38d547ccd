//! `glm info`: a model's sizes, weights and memory, or the processor.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use anyhow::Result;
use glm_model::{CalibrationInfo, Cores, Experts, ISA_VARIABLE, Inventory, Isa};
use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, System};

use crate::args::{Info, Source};
use crate::units::{bytes, left, right};
use crate::{failure, messages, open, output};

/// Contexts for which the memory is listed.
const CONTEXTS: [usize; 5] = [512, 1024, 2048, 8192, 32768];

pub fn run(args: &Info) -> Result<()> {
    if args.cpu {
        return cpu(args.json);
    }
    let program = program(&args.source);
    let model = &open::inventory(&args.source)?;
    if args.json {
        return output::json(&json(model, program));
    }
    open::remarks(&args.source, model).iter().for_each(|remark| output::note(remark));
    let mut lines = vec![open::title(&args.source, model), String::new()];
    lines.extend(sizes(model));
    lines.push(String::new());
    lines.extend(matrices(model));
    lines.push(String::new());
    lines.extend(memory(model, program));
    output::line(&lines.join("\n"))
}

/// The processor, its instruction sets and the kernels that are used.
fn cpu(as_json: bool) -> Result<()> {
    let isa = Isa::choose().map_err(|error| failure::usage(error.to_string()))?;
    let cores = Cores::detect();
    let available: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    let processor = processor();
    if as_json {
        return output::json(&json!({
            "architecture": ARCH,
            "processor": processor,
            "cores": cores.physical,
            "fast_cores": cores.fast,
            "hardware_threads": cores.threads,
            "default_threads": cores.default_threads(),
            "instruction_sets": available,
            "chosen": isa.name(),
            "kernels": isa.kernels().into_iter().collect::<BTreeMap<_, _>>(),
        }));
    }
    let how_chosen = match std::env::var_os(ISA_VARIABLE) {
        Some(name) if !name.is_empty() => messages::isa_is_forced(ISA_VARIABLE),
        _ => messages::isa_is_best(ISA_VARIABLE),
    };
    let shown_cores = match cores.fast < cores.physical {
        true => messages::cores_with_fast(cores.physical, cores.fast, cores.default_threads()),
        false => messages::cores(cores.physical, cores.default_threads()),
    };
    let processor = processor.map_or(ARCH.to_owned(), |name| format!("{name}, {ARCH}"));
    let rows = [
        (messages::processor(), processor),
        (messages::cores_label(), shown_cores),
        (messages::instruction_sets(), available.join(", ")),
        (messages::chosen(), format!("{}, {how_chosen}", isa.name())),
    ];
    let mut lines: Vec<_> =
        rows.iter().map(|(name, what)| format!("{}{what}", left(name, 18))).collect();
    lines.push(String::new());
    let kernels = isa.kernels();
    lines
        .extend(kernels.iter().map(|(kernel, instructions)| format!("{kernel:<42}{instructions}")));
    output::line(&lines.join("\n"))
}

/// The name of the processor, if the system knows it.
pub fn processor() -> Option<String> {
    let mut system = System::new();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let name = system.cpus().first()?.brand().trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// Memory of the program itself with the tokenizer of a model, if there is one: what this process has now. 0 if the system does not say.
fn program(source: &Source) -> u64 {
    let _tokenizer = open::tokenizer(source);
    open::own_memory().unwrap_or(0)
}

fn sizes(model: &Inventory) -> Vec<String> {
    let config = &model.config;
    let heads = match config.kv_heads {
        same if same == config.heads => config.heads.to_string(),
        fewer => messages::heads_of_values(config.heads, fewer),
    };
    let mut rows = vec![
        (messages::layers(), config.layers.to_string()),
        (messages::hidden_size(), config.hidden.to_string()),
        (messages::heads(), messages::heads_of_size(heads, config.head_size)),
        (messages::mlp_size(), config.intermediate_size.to_string()),
        (messages::vocabulary(), config.vocab.to_string()),
        (messages::context(), config.max_context.to_string()),
    ];
    rows.extend(config.latent.map(|latent| {
        let sizes = messages::latent_sizes(latent.rank, latent.rotary_dim);
        (messages::latent_attention(), sizes)
    }));
    rows.extend(config.experts.map(|experts| {
        let Experts { count, used, first_layer, .. } = experts;
        (messages::experts(), messages::experts_of_token(count, used, first_layer + 1))
    }));
    rows.extend(
        config.prefix.map(|prefix| {
            (messages::trained_prefix(), messages::positions_of_prefix(prefix.tokens))
        }),
    );
    rows.extend(model.calibration.as_ref().map(|calibration| {
        let CalibrationInfo { method, tokens, sha256, .. } = calibration;
        // Enough of it to tell texts apart.
        let text = sha256.chars().take(12).collect::<String>();
        (messages::calibration(), messages::calibrated_with(method, tokens, text))
    }));
    rows.extend(model.bits_per_weight().map(|bits| {
        let bits = format!("{bits:.2}");
        let shown = match model.target_bits {
            Some(target) => messages::bits_of_target(bits, target),
            None => bits,
        };
        (messages::bits_of_a_weight(), shown)
    }));
    rows.iter().map(|(name, size)| format!("{}{size}", left(name, 18))).collect()
}

fn matrices(model: &Inventory) -> Vec<String> {
    let widths = model.matrices.iter().map(|matrix| matrix.format.len());
    let width = widths.max().unwrap_or(0).max(20) + 2;
    let head = format!(
        "{}{}  {}  {}{}",
        left(&messages::matrix(), 18),
        right(&messages::count(), 5),
        right(&messages::shape(), 15),
        left(&messages::format(), width),
        right(&messages::size(), 8)
    );
    let rows = model.matrices.iter().map(|matrix| {
        let [rows, cols] = matrix.shape;
        let (shape, size) = (format!("{rows} × {cols}"), bytes(matrix.bytes));
        format!(
            "{:<18}{:>5}  {shape:>15}  {:<width$}{size:>8}",
            matrix.name, matrix.count, matrix.format
        )
    });
    let mut lines: Vec<_> = std::iter::once(head).chain(rows).collect();
    for (name, size) in [
        (messages::all_matrices(), model.bytes()),
        (messages::read_per_token(), model.bytes_per_token),
    ] {
        lines.push(format!("{}{:>2$}", left(&name, 18), bytes(size), width + 32));
    }
    lines
}

fn memory(model: &Inventory, program: u64) -> Vec<String> {
    let mut lines = vec![messages::weights(bytes(model.mapped_bytes()), bytes(model.copied_bytes))];
    if model.expert_bytes > 0 {
        let always = model.bytes() - model.table_bytes() - model.expert_bytes;
        lines.push(messages::expert_bytes(bytes(model.expert_bytes), bytes(always)));
    }
    if model.table_bytes() > 0 {
        lines.push(messages::tables(bytes(model.table_bytes())));
    }
    if program > 0 {
        lines.push(messages::program(bytes(program)));
    }
    lines.extend([
        String::new(),
        messages::full_context(),
        format!(
            "{}{}{}{}",
            right(&messages::context(), 8),
            right(&messages::keys_and_values(), 18),
            right(&messages::workspace(), 12),
            right(&messages::in_all(), 18)
        ),
    ]);
    for (context, cache, workspace) in needs(model) {
        let all = program + model.resident_bytes(context) + cache + workspace;
        let [cache, workspace, all] = [cache, workspace, all].map(bytes);
        lines.push(format!("{context:>8}{cache:>18}{workspace:>12}{all:>18}"));
    }
    lines
}

/// Contexts up to the largest, each with the bytes of its keys and values and of its workspace.
fn needs(model: &Inventory) -> Vec<(usize, u64, u64)> {
    let most = model.config.max_context;
    let smaller = CONTEXTS.into_iter().filter(|&context| context < most);
    let need = |context| {
        let (cache, workspace) = model.context_bytes(context);
        (context, cache, workspace)
    };
    smaller.chain([most]).map(need).collect()
}

fn json(model: &Inventory, program: u64) -> Value {
    let config = &model.config;
    let matrices = model.matrices.iter().map(|matrix| {
        json!({
            "name": matrix.name,
            "count": matrix.count,
            "shape": matrix.shape,
            "format": matrix.format,
            "bytes": matrix.bytes,
        })
    });
    let memory = needs(model).into_iter().map(|(context, cache, workspace)| {
        let weights = model.resident_bytes(context);
        let total = program + weights + cache + workspace;
        json!({
            "context": context,
            "cache": cache,
            "workspace": workspace,
            "weights": weights,
            "program": program,
            "total": total,
        })
    });
    json!({
        "architecture": config.architecture,
        "layers": config.layers,
        "hidden": config.hidden,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_size": config.head_size,
        "intermediate_size": config.intermediate_size,
        "vocab": config.vocab,
        "context": config.max_context,
        "text_part_only": config.is_text_part(),
        "prefix_tokens": config.prefix.map(|prefix| prefix.tokens),
        "matrices": matrices.collect::<Vec<_>>(),
        "weights": {
            "bytes": model.bytes(),
            "mapped": model.mapped_bytes(),
            "in_memory": model.copied_bytes,
            "tables": model.table_bytes(),
            "experts": model.expert_bytes,
        },
        "experts": config.experts.map(|experts| {
            let Experts { count, used, intermediate_size, .. } = experts;
            json!({ "count": count, "used": used, "intermediate_size": intermediate_size })
        }),
        "bytes_per_token": model.bytes_per_token,
        "memory": memory.collect::<Vec<_>>(),
        "quantized": model.is_quantized,
        "bits_per_weight": model.bits_per_weight(),
        "target_bits": model.target_bits,
        "calibration": model.calibration.as_ref().map(|calibration| {
            let CalibrationInfo { method, tokens, sha256, .. } = calibration;
            json!({ "method": method, "tokens": tokens, "sha256": sha256 })
        }),
    })
}
