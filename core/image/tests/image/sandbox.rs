//! The child that reads archives has no rights.

use crate::disks::converter;
use bulkhead_image::ImageError;
use bulkhead_image::convert::ConvertSpec;
use bytes::Bytes;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::sync::oneshot;

/// Status of the child of this test that converts: found by its parent and its environment.
fn status_of_child(mark: &str) -> Option<(u32, String)> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ours = format!("PPid:\t{}\n", std::process::id());
        if status.contains(&ours) && String::from_utf8_lossy(&environment).contains(mark) {
            return Some((pid, status));
        }
    }
    None
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

#[tokio::test]
async fn the_child_has_no_user_no_system_calls_and_no_files() {
    let mut config = super::converter_config();
    config.environment.push(("MARK".into(), "of-the-sandbox-test".into()));
    let converter = bulkhead_image::convert::Converter::new(config);
    let (go, gone) = oneshot::channel::<()>();
    let input = futures_util::stream::once(async move {
        let _ = gone.await;
        Ok::<_, ImageError>(Bytes::from(vec![0; 1024]))
    });
    let file = tempfile::tempfile().unwrap();
    let spec = ConvertSpec::default();
    let work = converter.convert(&spec, input.boxed(), file, |_| {});
    let look = async {
        let found = tokio::task::spawn_blocking(|| {
            bulkhead_test_support::wait_for("the child is in its sandbox", Duration::from_secs(20), || {
                status_of_child("MARK=of-the-sandbox-test")
                    .filter(|(_, status)| field(status, "Seccomp:") == "2")
            })
        });
        let (pid, status) = found.await.unwrap().unwrap();
        assert_eq!(field(&status, "NoNewPrivs:"), "1");
        assert_eq!(field(&status, "CapEff:"), "0000000000000000");
        assert_eq!(field(&status, "Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(field(&status, "Groups:"), "");
        let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        open.sort();
        assert_eq!(open, ["0", "1", "2", "3"]);
        // Of the thread that converts: the only one, but for the harness of this test.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let threads =
            || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|one| one.unwrap().path());
        assert!(threads().any(|thread| std::fs::read_link(thread.join("ns/net")).unwrap() != own));
        // Its niceness, field 19 (proc_pid_stat(5)): machines come first.
        let stats = threads().map(|thread| std::fs::read_to_string(thread.join("stat")).unwrap());
        let nice =
            |stat: &str| stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).map(str::to_owned);
        assert!(stats.map(|stat| nice(&stat)).any(|nice| nice.as_deref() == Some("10")));
        go.send(()).unwrap();
    };
    let (result, ()) = tokio::join!(work, look);
    assert_eq!(result.unwrap().entries, 0);
}

#[tokio::test]
async fn a_child_that_waits_too_long_is_ended() {
    let mut config = super::converter_config();
    config.deadline = Duration::from_millis(300);
    let never = futures_util::stream::pending::<Result<Bytes, ImageError>>();
    let converter = bulkhead_image::convert::Converter::new(config);
    let error = converter
        .convert(&ConvertSpec::default(), never, tempfile::tempfile().unwrap(), |_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn a_program_that_is_no_child_is_an_error() {
    let config = bulkhead_image::convert::ConverterConfig::new("/bin/true".into(), Vec::new());
    let converter = bulkhead_image::convert::Converter::new(config);
    let input = bulkhead_image::convert::chunks(&[0_u8; 1024][..]);
    let error = converter
        .convert(&ConvertSpec::default(), input, tempfile::tempfile().unwrap(), |_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("without an answer"), "{error}");
    assert!(self::converter().limits().entries > 0);
}
