//! What the command line asks for.

/// How many steps a run has before it is drained.
const STEPS_DEFAULT: u64 = 2500;
/// Seeds of a plain `cargo test`.
const SEEDS_DEFAULT: u64 = 300;

pub struct Options {
    /// How many seeds, from `first` on.
    pub seeds: u64,
    pub first: u64,
    pub steps: u64,
    /// Tell everything that happens.
    pub is_verbose: bool,
    /// Only the world in which something outlives the broker, or only the other.
    pub is_durable: Option<bool>,
    /// Whether the checker is checked too.
    pub has_self_test: bool,
    /// libtest's `--list`: nothing is to be run.
    pub lists: bool,
}

impl Options {
    /// Reads `--seeds N`, `--seed X`, `--steps N` and `--quiet`; whatever else libtest understands is ignored.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seeds: SEEDS_DEFAULT,
            first: 1,
            steps: STEPS_DEFAULT,
            is_verbose: false,
            is_durable: None,
            has_self_test: true,
            lists: false,
        };
        let arguments: Vec<String> =
            arguments.flat_map(|argument| argument.split('=').map(str::to_owned).collect::<Vec<_>>()).collect();
        let number = |at: usize| {
            let text = arguments.get(at + 1).ok_or_else(|| format!("{} wants a number", arguments[at]))?;
            text.parse::<u64>().map_err(|_| format!("{} wants a number, not '{text}'", arguments[at]))
        };
        for (at, argument) in arguments.iter().enumerate() {
            match argument.as_str() {
                "--seeds" => (options.seeds, options.has_self_test) = (number(at)?, false),
                "--first" => options.first = number(at)?,
                "--steps" => options.steps = number(at)?,
                "--seed" => {
                    (options.first, options.seeds) = (number(at)?, 1);
                    (options.is_verbose, options.has_self_test) = (true, false);
                }
                "--durable" => options.is_durable = Some(true),
                "--transient" => options.is_durable = Some(false),
                "--quiet" | "-q" => options.is_verbose = false,
                "--list" => options.lists = true,
                _ => {}
            }
        }
        Ok(options)
    }

    /// Which worlds are run: whether something outlives the broker there.
    pub fn worlds(&self) -> Vec<bool> {
        self.is_durable.map_or_else(|| vec![false, true], |is_durable| vec![is_durable])
    }
}
