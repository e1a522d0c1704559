//! What is compared: quantiles of a histogram, rates, messages for each CPU second of the broker.

use crate::result::quantile::{self, QUANTILES};
use crate::units::{nanos_text, short_rate_text, three_digits};

/// One line of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// By name, such as `p99.9`, and as a fraction.
    Quantile(String, f64),
    /// The longest.
    Max,
    /// Of all latencies.
    Mean,
    /// Of what the scenario is about: received, else operations, confirmed, published.
    Rate,
    /// Messages published a second.
    Published,
    /// Messages confirmed a second.
    Confirmed,
    /// Messages received a second.
    Received,
    /// Operations a second.
    Operations,
    /// As [`Metric::Rate`], for each second of the broker's CPU time.
    PerCpuSecond,
    /// Octets that the broker has written to disk for each message.
    Disk,
    /// The same for each octet of their bodies.
    Amplification,
}

impl Metric {
    /// Of every table, as far as there are numbers.
    pub fn all() -> Vec<Self> {
        let quantiles = QUANTILES.iter().map(|(name, quantile)| Self::Quantile((*name).to_owned(), *quantile));
        let others = [
            Self::Max,
            Self::Mean,
            Self::Rate,
            Self::Published,
            Self::Confirmed,
            Self::Received,
            Self::Operations,
            Self::PerCpuSecond,
            Self::Disk,
            Self::Amplification,
        ];
        quantiles.chain(others).collect()
    }

    /// As in conditions; `None` where there is none of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "max" => Self::Max,
            "mean" => Self::Mean,
            "rate" => Self::Rate,
            "published" => Self::Published,
            "confirmed" => Self::Confirmed,
            "received" => Self::Received,
            "operations" => Self::Operations,
            "per-cpu" => Self::PerCpuSecond,
            "disk" => Self::Disk,
            "amplification" => Self::Amplification,
            _ => Self::Quantile(name.to_owned(), quantile::from_name(name)?),
        })
    }

    /// As in conditions and tables.
    pub fn name(&self) -> &str {
        match self {
            Self::Quantile(name, _) => name,
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Rate => "rate",
            Self::Published => "published",
            Self::Confirmed => "confirmed",
            Self::Received => "received",
            Self::Operations => "operations",
            Self::PerCpuSecond => "per-cpu",
            Self::Disk => "disk",
            Self::Amplification => "amplification",
        }
    }

    /// The unit to be said beside the name; empty where values carry it.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Quantile(..) | Self::Max | Self::Mean | Self::Amplification => "",
            Self::Disk => " B/msg",
            _ => " /s",
        }
    }

    /// Whether less of it is better.
    pub fn is_cost(&self) -> bool {
        self.is_latency() || matches!(self, Self::Disk | Self::Amplification)
    }

    /// Whether it is a time, in nanoseconds.
    pub fn is_latency(&self) -> bool {
        matches!(self, Self::Quantile(..) | Self::Max | Self::Mean)
    }

    /// A value for people.
    pub fn text(&self, value: f64) -> String {
        match self {
            _ if self.is_latency() => nanos_text(value),
            Self::Amplification => three_digits(value),
            _ => short_rate_text(value),
        }
    }
}
