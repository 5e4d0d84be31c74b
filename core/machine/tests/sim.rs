//! The simulated back end does what every back end must.

use async_trait::async_trait;
use bulkhead_guest_protocol::message::Process;
use bulkhead_machine::conformance::{Does, Failure, Fixture};
use bulkhead_machine::sim::Sim;
use bulkhead_machine::{BackEnd, conformance};
use bulkhead_model::{Digest, ServerId, VchId};

struct Simulated(Sim);

#[async_trait]
impl Fixture for Simulated {
    fn back_end(&self) -> BackEnd {
        self.0.back_end()
    }

    async fn reopen(&mut self) -> Result<BackEnd, Failure> {
        Ok(self.0.back_end())
    }

    fn server(&self) -> ServerId {
        ServerId(uuid::Uuid::from_bytes([0x77; 16]))
    }

    async fn image(&self, vch: VchId) -> Result<Vec<Digest>, Failure> {
        let layer = Digest::of(b"image");
        self.0.back_end().disks.stage_layer(vch).await?.commit(&layer).await?;
        Ok(vec![layer])
    }

    fn process(&self, what: &[Does]) -> Process {
        let mut args = vec!["sim".to_owned()];
        for step in what {
            let words = match step {
                Does::Count(lines) => format!("count {lines} ;"),
                Does::Sleep => "sleep ;".to_owned(),
                Does::Exit(code) => format!("exit {code} ;"),
            };
            args.extend(words.split(' ').map(str::to_owned));
        }
        Process {
            args,
            env: Vec::new(),
            working_dir: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            capabilities: 0,
            filtered: false,
            no_new_privileges: false,
            limits: Vec::new(),
            oom_score_adj: 0,
        }
    }
}

conformance!(async { Simulated(Sim::new()) });
