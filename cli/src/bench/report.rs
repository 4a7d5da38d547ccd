//! Shows results: as a table, as JSON, as a picture.

use std::env::consts::ARCH;
use std::time::Duration;

use anyhow::Result;
use glm_model::{Activations, Model};
use indicatif::ProgressBar;
use serde_json::json;

use super::limit::Limits;
use super::measurement::{Measurement, Test};
use super::plot::{Panel, Picture, Point, Scale};
use super::table::Table;
use crate::args::Bench;
use crate::output::{self, note};
use crate::{info, models, open, units};

pub struct Report<'a> {
    args: &'a Bench,
    model: &'a Model,
    opened: Duration,
    /// Cleared while a line is printed.
    progress: &'a ProgressBar,
    /// The model, where it comes from, and its weights.
    title: String,
    processor: String,
    table: Table,
    measurements: Vec<Measurement>,
}

impl<'a> Report<'a> {
    pub fn new(
        args: &'a Bench,
        model: &'a Model,
        opened: Duration,
        progress: &'a ProgressBar,
    ) -> Self {
        let inventory = model.inventory();
        let (title, name) = match &args.shape {
            Some(shape) => (format!("{shape}, random weights"), shape.as_str()),
            None => (open::title(&args.model.source, inventory), inventory.config.architecture),
        };
        let format = models::weights(inventory).split(',').next().unwrap_or_default();
        let table = Table::new(&format!("{name} {format}"), model, args.tokens);
        let processor = info::processor().unwrap_or_else(|| ARCH.to_owned());
        Self { args, model, opened, progress, title, processor, table, measurements: Vec::new() }
    }

    /// Prints what is the same for all rows, and the head of the table.
    pub fn begin(&self) -> Result<()> {
        let weights = match self.args.shape {
            Some(_) => format!(": {}", models::weights(self.model.inventory())),
            None => String::new(),
        };
        self.line(&format!("{}{weights}", self.title))?;
        self.line(&format!(
            "{}; {}, {}; opened in {}",
            self.processor,
            units::count(self.model.threads(), "thread"),
            self.model.isa().name(),
            units::seconds(self.opened)
        ))?;
        self.line(&format!("\n{}", self.table.head()))
    }

    /// Prints a row.
    pub fn add(&mut self, measurement: Measurement) -> Result<()> {
        self.line(&self.table.row(&measurement))?;
        self.measurements.push(measurement);
        Ok(())
    }

    /// Prints what is known at the end only, and JSON if it is wanted.
    pub fn end(&self, limits: &Limits) -> Result<()> {
        let memory = open::peak_memory();
        let mut lines = Vec::new();
        for measurement in &self.measurements {
            if let (Some(drafts), Some(ratio)) = (measurement.drafts, measurement.tokens_per_pass())
            {
                let (accepted, drafted) = (drafts.accepted, drafts.drafted);
                lines.push(format!(
                    "prompt lookup: {accepted} of {drafted} drafted tokens accepted, {ratio:.2} tokens a pass"
                ));
            }
        }
        lines.push(format!(
            "this machine: reads {:.1} GB/s, {:.0} G multiply-adds of 8 bits a second",
            limits.machine.bytes / 1e9,
            limits.machine.multiply_adds / 1e9
        ));
        lines.extend(memory.map(|memory| format!("peak memory: {}", units::bytes(memory))));
        self.line(&format!("\n{}", lines.join("\n")))?;
        if self.args.json { output::json(&self.json(limits, memory)) } else { Ok(()) }
    }

    fn json(&self, limits: &Limits, memory: Option<u64>) -> serde_json::Value {
        let of = |kind: fn(Test) -> bool| -> Vec<_> {
            let measurements = self.measurements.iter().filter(|measured| kind(measured.test));
            measurements.map(|measured| measured.json(limits)).collect()
        };
        let inventory = self.model.inventory();
        json!({
            "model": self.title,
            "size_bytes": inventory.bytes(),
            "parameters": inventory.parameters(),
            "processor": self.processor,
            "threads": self.model.threads(),
            "isa": self.model.isa().name(),
            "opened_seconds": self.opened.as_secs_f64(),
            "bytes_per_second": limits.machine.bytes,
            "multiply_adds_per_second": limits.machine.multiply_adds,
            "peak_memory_bytes": memory,
            "runs": of(|test| matches!(test, Test::Prompt(_) | Test::Decode(_))),
            "sequences": of(|test| matches!(test, Test::Sequences(_))),
            "drafts": of(|test| matches!(test, Test::Verify(_))),
            "lookup": of(|test| matches!(test, Test::Lookup(_))).pop(),
        })
    }

    /// The speed of prompts and of generation, with their limits.
    pub fn picture(&self, limits: &Limits) -> Picture {
        let points = |length: fn(Test) -> Option<usize>| -> Vec<_> {
            let points = self.measurements.iter().filter_map(|measured| {
                let (median, least, most) = (measured.median(), measured.least(), measured.most());
                Some(Point { tokens: length(measured.test)?, median, least, most })
            });
            points.collect()
        };
        let reads = format!("limit: reads {:.1} GB/s", limits.machine.bytes / 1e9);
        let limit = match self.model.activations() {
            Activations::Int8 => {
                format!("{reads}, {:.0} G multiply-adds/s", limits.machine.multiply_adds / 1e9)
            }
            Activations::F32 => reads,
        };
        let prompts = Panel::new(
            "Reading a prompt",
            "tokens of the prompt",
            Scale::Logarithmic,
            points(|test| if let Test::Prompt(tokens) = test { Some(tokens) } else { None }),
            &limit,
            |tokens| limits.of(Test::Prompt(tokens)),
        );
        let decode = Panel::new(
            "Generating",
            "tokens of context",
            Scale::Linear,
            points(|test| if let Test::Decode(depth) = test { Some(depth) } else { None }),
            &limit,
            |depth| limits.of(Test::Decode(depth)),
        );
        let (threads, isa) = (units::count(self.model.threads(), "thread"), self.model.isa());
        let size = units::bytes(self.model.inventory().bytes());
        let random = if self.args.shape.is_some() { ", random weights" } else { "" };
        Picture {
            title: format!("{}, {size}{random}", self.table.model()),
            subtitle: format!("{}, {threads}, {}", self.processor, isa.name()),
            panels: vec![prompts, decode],
        }
    }

    /// Prints a line; with `--json`, on stderr.
    fn line(&self, text: &str) -> Result<()> {
        self.progress.suspend(|| match self.args.json {
            true => {
                note(text);
                Ok(())
            }
            false => output::line(text),
        })
    }
}
