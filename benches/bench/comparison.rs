//! One row of a table: a metric of two providers, and the target for it.

/// The target for a comparison. A ratio is that of the first provider to the second.
#[derive(Clone, Copy)]
pub enum Target {
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// A bound on the first provider's value itself.
    AtMost(f64),
}

/// A metric of two providers; the values are medians of the rounds.
pub struct Comparison {
    pub workload: String,
    /// The metric with its unit.
    pub metric: String,
    pub values: [f64; 2],
    pub target: Option<Target>,
}

impl Comparison {
    pub fn ratio(&self) -> f64 {
        self.values[0] / self.values[1]
    }

    /// The row of a Markdown table.
    pub fn row(&self) -> String {
        let (target, met) = match self.target {
            None => (String::new(), None),
            Some(Target::RatioAtMost(limit)) => (format!("≤ {limit}"), Some(self.ratio() <= limit)),
            Some(Target::RatioAtLeast(limit)) => {
                (format!("≥ {limit}"), Some(self.ratio() >= limit))
            }
            Some(Target::AtMost(limit)) => {
                (format!("kvredis ≤ {limit}"), Some(self.values[0] <= limit))
            }
        };
        let met = match met {
            None => "",
            Some(true) => "yes",
            Some(false) => "no",
        };
        format!(
            "| {} | {} | {:.1} | {:.1} | {:.2} | {target} | {met} |",
            self.workload,
            self.metric,
            self.values[0],
            self.values[1],
            self.ratio(),
        )
    }
}
