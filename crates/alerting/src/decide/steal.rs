//! Rule `cpu-stolen`.
//!
//! *Why*: CPU time that the hypervisor gives to other guests is missing here, and nothing inside this host can be mended for it.
//! *Source*: `steal` of `/proc/stat` over windows of about a second; zero on hardware, and on hypervisors that do not tell.
//! *First things to do*: tell the provider; move the guest, or take one whose CPUs are its own.

use std::time::Duration;

use model::{Observation, Reading, Severity, Share, alert::rule, reading::HostReading};

use super::{
    cpu,
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::percent,
};
use crate::settings::{self, duration};

/// The rule's state.
pub(super) struct CpuStolen {
    settings: settings::CpuStolen,
    gate: Gate,
    host: Option<HostReading>,
}

impl CpuStolen {
    pub(super) fn new(settings: settings::CpuStolen) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 3,
            lasting: duration(settings.for_s),
            clear: duration(settings.clear_s),
            forget: Duration::from_secs(5),
            max_gap: cpu::MAX_GAP,
        });
        Self { settings, gate, host: None }
    }
}

impl Rule for CpuStolen {
    fn id(&self) -> &'static str {
        rule::CPU_STOLEN
    }

    fn title(&self, subject: &Subject) -> String {
        format!("CPU of {} taken by other guests", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Host(host)) = observation else { return None };
        cpu::weight(host.window)?;
        let stolen = host.cpu.steal * 100.0;
        let verdict = if stolen >= self.settings.steal_percent {
            Verdict::Bad(Severity::Warning)
        } else if stolen < self.settings.clear_percent {
            Verdict::Good
        } else {
            Verdict::Between
        };
        self.host = Some(host.clone());
        Some(Judgement { window: host.window, ..Judgement::instant(host.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(host) = &self.host else { return Facts::default() };
        Facts {
            summary: format!(
                "The hypervisor takes {} of the CPU of {} for others",
                percent(Share(host.cpu.steal)),
                subject.host
            ),
            details: cpu::cpu_facts(host),
            next_steps: steps(&[
                "keep it as evidence: `sar -u 1 60` or `vmstat 1 60` (column st), and when it began",
                "tell the provider, or who runs the hypervisor: the guest itself can't mend it",
                "move: stop and start the guest on another node, or take one with CPUs of its own",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.host.as_ref().map(cpu::cpu_facts).unwrap_or_default()
    }
}
