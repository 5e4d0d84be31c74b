use super::*;
use proptest::prelude::*;

fn read(offset: u64, bytes: &[u8]) -> Vec<(u64, Record)> {
    read_in_steps(offset, bytes, bytes.len().max(1))
}

fn read_in_steps(offset: u64, bytes: &[u8], step: usize) -> Vec<(u64, Record)> {
    let mut reader = Reader::new(offset);
    let mut records = Vec::new();
    for piece in bytes.chunks(step) {
        reader.push(reader.end(), piece);
        while let Some(record) = reader.next_record() {
            records.push(record);
        }
        assert!(reader.buffer.len() - reader.taken < RECORD_BYTES_MAX);
    }
    records
}

fn output(records: &[(u64, Record)]) -> Vec<u8> {
    let data = records.iter().filter_map(|(_, record)| match &record.body {
        Body::Output { data, .. } => Some(data.clone()),
        _ => None,
    });
    data.flatten().collect()
}

fn exit() -> Exited {
    Exited { code: 137, signal: Some(9), oom_killed: true, error: "ü".to_owned() }
}

fn a_run(run: u32) -> Vec<u8> {
    let (mut writer, mut out) = (Writer::new(run), Vec::new());
    writer.started(1, &Started { pid: 77 }, &mut out);
    writer.output(Stream::Stdout, 2, b"hello\n", &mut out);
    writer.output(Stream::Stderr, 3, &[7; 40_000], &mut out);
    writer.exited(4, exit(), &mut out);
    out
}

#[test]
fn a_run_comes_back() {
    let out = a_run(5);
    let records = read(1000, &out);
    let bodies: Vec<_> = records.iter().map(|(_, record)| record.body.clone()).collect();
    assert_eq!(bodies.len(), 6);
    assert_eq!(bodies[0], Body::Started(Started { pid: 77 }));
    assert_eq!(bodies[1], Body::Output { stream: Stream::Stdout, data: b"hello\n".to_vec() });
    assert_eq!(bodies[5], Body::Exited(exit()));
    assert_eq!(records[0].0, 1000);
    assert_eq!(records[1].0, 1000 + HEADER_BYTES as u64 + 1);
    assert!(records.iter().zip(0..).all(|((_, record), seq)| record.run == 5 && record.seq == seq));
    assert_eq!(records.iter().map(|(_, r)| r.unix_ns).collect::<Vec<_>>(), [1, 2, 3, 3, 3, 4]);
}

#[test]
fn output_that_imitates_a_record_is_never_taken_for_one() {
    let (mut writer, mut forged) = (Writer::new(1), Vec::new());
    writer.exited(9, Exited::default(), &mut forged);
    let mut out = Vec::new();
    Writer::new(1).output(Stream::Stdout, 1, &forged.repeat(3), &mut out);
    for from in 0..out.len() {
        for (_, record) in read(0, &out[from..]) {
            assert!(matches!(record.body, Body::Output { .. }), "from {from}");
        }
    }
    assert_eq!(output(&read(0, &out)), forged.repeat(3));
}

#[test]
fn a_record_that_was_cut_does_not_hold_back_the_next_run() {
    let mut first = Vec::new();
    Writer::new(1).output(Stream::Stdout, 1, &[b'x'; 10_000], &mut first);
    let (mut writer, mut second) = (Writer::new(2), Vec::new());
    writer.start_failed(1, StartFailed { code: 127, message: "no".to_owned() }, &mut second);
    for cut in [1, 3, 4, 8, 35, 36, 37, 9_999] {
        let stream = [&first[..cut], &second].concat();
        let records = read(0, &stream);
        assert_eq!(records.len(), 1, "cut at {cut}");
        assert_eq!((records[0].0, records[0].1.run), (cut as u64, 2));
    }
}

#[test]
fn a_hole_in_the_journal_is_jumped() {
    let out = a_run(1);
    let mut reader = Reader::new(0);
    reader.push(0, &out[..60]);
    assert!(reader.next_record().is_some());
    assert!(reader.next_record().is_none());
    reader.push(5000, &out);
    assert_eq!(reader.next_record().map(|(offset, _)| offset), Some(5000));
    assert!(reader.skipped() > 0);
}

#[test]
fn long_texts_are_cut() {
    let (mut writer, mut out) = (Writer::new(1), Vec::new());
    writer.start_failed(1, StartFailed { code: 125, message: "ü".repeat(9000) }, &mut out);
    let Body::StartFailed(failed) = read(0, &out)[0].1.body.clone() else { panic!("wrong kind") };
    assert_eq!(failed.message.len(), TEXT_BYTES_MAX);
}

#[test]
fn a_damaged_record_is_skipped_alone() {
    let mut out = a_run(1);
    out[HEADER_BYTES + 1 + 20] ^= 1;
    assert_eq!(read(0, &out).len(), 5);
}

proptest! {
    #[test]
    fn any_bytes_are_harmless(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            Just(MAGIC.to_vec()),
            prop::collection::vec(prop_oneof![Just(0xf5), Just(0), Just(1)], 0..40),
        ], 0..20),
        step in 1_usize..90,
    ) {
        read_in_steps(u64::MAX - 5, &pieces.concat(), step);
    }

    #[test]
    fn records_come_out_of_garbage(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), any::<u32>()), 1..6),
        step in 1_usize..9000,
    ) {
        let mut stream = Vec::new();
        for (garbage, run) in &parts {
            stream.extend_from_slice(garbage);
            stream.extend(a_run(*run));
        }
        let runs: Vec<u32> = read_in_steps(0, &stream, step).iter().map(|(_, record)| record.run).collect();
        let expect: Vec<u32> = parts.iter().flat_map(|(_, run)| [*run; 6]).collect();
        prop_assert_eq!(runs, expect);
    }

    #[test]
    fn a_reader_from_the_middle_finds_what_follows(from in 0_usize..40_000) {
        let whole = read(0, &a_run(3));
        let out = a_run(3);
        let from = from.min(out.len());
        let later = read(from as u64, &out[from..]);
        let expect: Vec<_> = whole.into_iter().filter(|(offset, _)| *offset >= from as u64).collect();
        prop_assert_eq!(later, expect);
    }

    #[test]
    fn output_is_whole_whatever_it_is(
        data in prop::collection::vec(prop_oneof![Just(0xf5), Just(0x4a), Just(0xfe), Just(0xb1), any::<u8>()], 0..3000),
    ) {
        let mut out = Vec::new();
        Writer::new(1).output(Stream::Stderr, 1, &data, &mut out);
        let records = read(0, &out);
        prop_assert_eq!(output(&records), data);
        for (offset, record) in &records {
            let Body::Output { data, .. } = &record.body else { unreachable!() };
            prop_assert!(find_magic(data).is_none(), "at {offset}");
        }
    }
}
