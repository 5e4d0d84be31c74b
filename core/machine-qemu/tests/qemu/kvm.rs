//! KVM is used where it boots a guest, and tried once.

use crate::fixture::Qemu;
use bulkhead_machine_qemu::{AcceleratorChoice, QemuBackEnd, QemuConfig, QemuError};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn kvm_is_tried_out_once_and_the_verdict_remembered() {
    let fixture = Qemu::new().await;
    let config = QemuConfig { accelerator: AcceleratorChoice::Auto, ..fixture.config().clone() };
    let open = async |config: &QemuConfig| QemuBackEnd::open(config.clone(), fixture.server_id()).await;
    let first = open(&config).await.unwrap();
    let accelerator = first.back_end().machines.capabilities().accelerator.clone();
    first.close().await;
    let file = config.data_dir.join("kvm.json");
    let mut verdict: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(verdict["refusal"].is_null(), accelerator == "kvm", "{verdict}");
    assert_eq!(first.back_end().machines.capabilities().hardware_isolation, accelerator == "kvm");

    // A verdict of this host is believed, whatever it says …
    verdict["refusal"] = "as a test says".into();
    fs::write(&file, verdict.to_string()).unwrap();
    let insisting = QemuConfig { accelerator: AcceleratorChoice::Kvm, ..config.clone() };
    let refused = open(&insisting).await.unwrap_err();
    assert!(matches!(&refused, QemuError::NoKvm { why } if why == "as a test says"), "{refused}");
    // … and one of another is not.
    verdict["host"] = "another".into();
    fs::write(&file, verdict.to_string()).unwrap();
    let again = open(&config).await.unwrap();
    assert_eq!(again.back_end().machines.capabilities().accelerator, accelerator);
    again.close().await;
}

#[test]
fn a_guest_image_that_is_not_there_is_told_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let why = bulkhead_machine_qemu::probe_kvm_blocking(None, &folder.path().join("none"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = QemuConfig::new(folder.path(), folder.path().join("none"));
    let server = bulkhead_model::ServerId(uuid::Uuid::nil());
    let error = runtime.block_on(QemuBackEnd::open(config, server)).unwrap_err();
    assert!(error.to_string().contains("cargo xtask guest-image"), "{error}");
    assert!(why.is_err());
}
