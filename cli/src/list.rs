//! `glm list`: the models that are here.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::List;
use crate::models::{self, State, Stored};
use crate::output::{self, note};
use crate::{messages, table, units};

pub fn run(args: &List) -> Result<()> {
    let all = models::all()?.into_iter().map(|model| {
        let state =
            if model.is_unfinished() { unfinished(&model) } else { State::of(&model.folder) };
        (model, state)
    });
    let is_shown = |state: &State| args.all || !matches!(state, State::Unsupported { .. });
    let shown: Vec<_> = all.filter(|(_, state)| is_shown(state)).collect();
    if args.json {
        return output::json(&shown.iter().map(|(model, state)| json(model, state)).collect());
    }
    if shown.is_empty() {
        note(&messages::no_models());
        note(&messages::get_a_model());
        return Ok(());
    }
    let heads = ["NAME", "SIZE", "FORMAT", "KIND", "CHANGED"].map(str::to_owned);
    let rows = shown.iter().map(|(model, state)| row(model, state));
    output::line(&table::aligned(&std::iter::once(heads).chain(rows).collect::<Vec<_>>()))
}

/// The state of a folder whose name says that it is not finished, whatever is in it.
fn unfinished(model: &Stored) -> State {
    let kind = match State::of(&model.folder) {
        State::Ready { kind, .. } | State::Incomplete { kind } | State::Damaged { kind } => kind,
        State::Unsupported { kind } => kind.unwrap_or_default(),
    };
    State::Incomplete { kind }
}

fn row(model: &Stored, state: &State) -> [String; 5] {
    let (format, kind) = match state {
        State::Ready { kind, format } => (format.clone(), kind.clone()),
        State::Incomplete { kind } => (messages::incomplete(), kind.clone()),
        State::Damaged { kind } => (messages::damaged(), kind.clone()),
        State::Unsupported { kind } => (messages::unsupported(), kind.clone().unwrap_or_default()),
    };
    let size = units::bytes(model.bytes());
    [model.name(), size, format, kind, ago(model.changed)]
}

fn json(model: &Stored, state: &State) -> Value {
    let (name, format, kind) = match state {
        State::Ready { kind, format } => ("ready", Some(format), Some(kind)),
        State::Incomplete { kind } => ("incomplete", None, Some(kind)),
        State::Damaged { kind } => ("damaged", None, Some(kind)),
        State::Unsupported { kind } => ("unsupported", None, kind.as_ref()),
    };
    let changed = model.changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    json!({
        "name": model.name(),
        "bytes": model.bytes(),
        "format": format,
        "kind": kind,
        "state": name,
        "changed": changed.as_secs(),
        "folder": model.folder,
    })
}

/// How long ago that was.
fn ago(then: SystemTime) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match SystemTime::now().duration_since(then).unwrap_or(Duration::ZERO).as_secs() {
        ..MINUTE => messages::just_now(),
        seconds @ ..HOUR => messages::minutes_ago(seconds / MINUTE),
        seconds @ ..DAY => messages::hours_ago(seconds / HOUR),
        seconds => messages::days_ago(seconds / DAY),
    }
}
