//! Agents that lie, flood, and speak of what nobody asked for.

use super::stream::OUTPUT_WINDOW;
use super::*;
use bulkhead_guest_protocol::journal::{Exited, Stream};
use bulkhead_guest_protocol::message::{AgentState, DATA_BYTES_MAX, INPUT_WINDOW, Process, Stdio, Took};
use tokio::io::DuplexStream;

const TOKEN: [u8; 32] = [7; 32];
const NONCE: [u8; 16] = [3; 16];
const SOON: Duration = Duration::from_secs(10);

/// The other end of a link, to be as hostile as it likes.
struct Guest {
    channel: DuplexStream,
    decoder: Decoder,
}

impl Guest {
    async fn hear(&mut self) -> Option<Request> {
        let mut buffer = vec![0; 4096];
        loop {
            if let Some(payload) = self.decoder.next_frame() {
                return Some(frame::decode(&payload).unwrap());
            }
            match self.channel.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.push(&buffer[..count]),
            }
        }
    }

    async fn say(&mut self, id: u32, body: ReplyBody) -> std::io::Result<()> {
        self.channel.write_all(&frame::encode(&Reply { id, body }).unwrap()).await
    }

    async fn event(&mut self, event: Event) -> std::io::Result<()> {
        self.say(NO_REPLY, ReplyBody::Event(event)).await
    }

    async fn greet(&mut self, token: [u8; 32], nonce: [u8; 16]) {
        assert!(matches!(self.hear().await.unwrap().body, RequestBody::Hello { .. }));
        self.say_hello(token, nonce).await;
    }

    async fn say_hello(&mut self, token: [u8; 32], nonce: [u8; 16]) {
        let hello = Hello {
            protocol: PROTOCOL_MAX,
            nonce,
            agent: String::new(),
            kernel: String::new(),
            token: Some(token),
            state: AgentState::Ready,
        };
        self.say(HELLO_ID, ReplyBody::Hello(hello)).await.unwrap();
    }

    /// The id of the next request, which must be an exec, and its stream.
    async fn exec(&mut self) -> (u32, u32) {
        match self.hear().await.unwrap() {
            Request { id, body: RequestBody::Exec(exec) } => (id, exec.stream),
            other => panic!("{other:?} instead of an exec"),
        }
    }
}

fn pair() -> (Link, Guest) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let link = Link::open(Box::new(ours), NONCE, &TaskTracker::new());
    (link, Guest { channel: theirs, decoder: Decoder::default() })
}

async fn greeted() -> (Link, Guest) {
    let (mut link, mut guest) = pair();
    let (hello, ()) = tokio::join!(link.greeting(&TOKEN, SOON), guest.greet(TOKEN, NONCE));
    assert!(hello.unwrap().is_some());
    (link, guest)
}

fn process() -> Process {
    crate::driver::process(
        &bulkhead_model::container::resolve(
            &"ab".repeat(32).parse().unwrap(),
            &bulkhead_model::ContainerAsk { cmd: Some(vec!["x".into()]), ..Default::default() },
            &bulkhead_model::ImageConfig::default(),
            &bulkhead_model::VchSettings::default(),
        )
        .unwrap(),
    )
}

/// A stream whose process runs, as the agent says.
async fn streaming(link: &Link, guest: &mut Guest) -> (u32, GuestStream) {
    let agent = link.agent().clone();
    let begin = async { agent.exec(process(), Stdio { stdin: true, terminal: None }, SOON).await };
    let answer = async {
        let (id, stream) = guest.exec().await;
        guest.say(id, ReplyBody::Started { pid: 9, unix_ns: 0, took: Took::default() }).await.unwrap();
        stream
    };
    let (begun, stream) = tokio::join!(begin, answer);
    (stream, begun.unwrap().unwrap().1)
}

#[tokio::test]
async fn whoever_has_not_the_token_is_not_believed() {
    let (mut link, mut guest) = pair();
    let (hello, ()) = tokio::join!(link.greeting(&TOKEN, SOON), guest.greet([8; 32], NONCE));
    assert!(matches!(hello, Err(GuestError::Impostor)));
}

#[tokio::test]
async fn an_answer_to_another_greeting_is_passed_over() {
    let (mut link, mut guest) = pair();
    let answers = async {
        guest.greet([8; 32], [0; 16]).await;
        guest.say_hello(TOKEN, NONCE).await;
    };
    let (hello, ()) = tokio::join!(link.greeting(&TOKEN, SOON), answers);
    assert_eq!(hello.unwrap().unwrap().nonce, NONCE);
}

#[tokio::test]
async fn foreign_ids_and_streams_are_passed_over() {
    let (link, mut guest) = greeted().await;
    let call = link.call(RequestBody::SetClock { unix_ns: 1 }, SOON);
    let answer = async {
        let id = guest.hear().await.unwrap().id;
        guest.channel.write_all(b"\0no frame at all\0").await.unwrap();
        guest.say(id ^ 1, ReplyBody::Refused { message: "of another".into() }).await.unwrap();
        let exited = Exited::default();
        guest.event(Event::Ended { stream: 77, exited }).await.unwrap();
        guest.event(Event::InputTaken { stream: 0, bytes: u32::MAX }).await.unwrap();
        guest.say(id, ReplyBody::Done).await.unwrap();
    };
    let (reply, ()) = tokio::join!(call, answer);
    assert_eq!(reply.unwrap(), ReplyBody::Done);
}

#[tokio::test]
async fn silence_ends_a_call_and_nothing_else() {
    let (link, mut guest) = greeted().await;
    let late = link.call(RequestBody::SetClock { unix_ns: 1 }, Duration::from_millis(20)).await;
    assert!(matches!(late, Err(GuestError::Silent(_))), "{late:?}");
    let first = guest.hear().await.unwrap().id;
    let call = link.call(RequestBody::SetClock { unix_ns: 2 }, SOON);
    let answer = async {
        let id = guest.hear().await.unwrap().id;
        // Too late for the first, and not taken for the second.
        guest.say(first, ReplyBody::Refused { message: "late".into() }).await.unwrap();
        guest.say(id, ReplyBody::Done).await.unwrap();
    };
    assert_eq!(tokio::join!(call, answer).0.unwrap(), ReplyBody::Done);
}

#[tokio::test]
async fn output_beyond_the_credit_ends_its_stream_only() {
    let (link, mut guest) = greeted().await;
    let (number, mut stream) = streaming(&link, &mut guest).await;
    let (other, mut next) = streaming(&link, &mut guest).await;
    let mut sent = 0;
    // Nobody takes any of it.
    while sent < 4 << 20 {
        let data = vec![1; DATA_BYTES_MAX];
        sent += data.len();
        guest.event(Event::Output { stream: number, of: Stream::Stdout, data }).await.unwrap();
        guest.event(Event::Output { stream: other, of: Stream::Stdout, data: vec![2] }).await.unwrap();
        assert!(matches!(next.next().await, Some(StreamEvent::Output { .. })));
    }
    let mut taken = 0;
    while let Some(StreamEvent::Output { data, .. }) = stream.next().await {
        taken += data.len();
    }
    assert!(taken <= usize::try_from(OUTPUT_WINDOW).unwrap(), "{taken}");
    assert!(!link.agent().is_closed());
}

#[tokio::test]
async fn a_window_never_grows_by_what_an_agent_says_it_took() {
    let (link, mut guest) = greeted().await;
    let (number, stream) = streaming(&link, &mut guest).await;
    for _ in 0..3 {
        guest.event(Event::InputTaken { stream: number, bytes: u32::MAX }).await.unwrap();
    }
    // Heard, once a call behind them is answered.
    let call = link.call(RequestBody::SetClock { unix_ns: 1 }, SOON);
    let answer = async {
        let id = guest.hear().await.unwrap().id;
        guest.say(id, ReplyBody::Done).await.unwrap();
    };
    tokio::join!(call, answer).0.unwrap();
    let (input, mut sent) = (stream.input(), 0);
    let data = vec![0; 4 * INPUT_WINDOW as usize];
    let listen = async {
        let mut heard = 0;
        while heard < INPUT_WINDOW as usize {
            if let RequestBody::Input { data, .. } = guest.hear().await.unwrap().body {
                heard += data.len();
            }
        }
        // And no more: whatever comes next comes after this.
        tokio::time::timeout(Duration::from_millis(50), guest.hear()).await.is_err()
    };
    tokio::select! {
        _ = input.write(&data, &mut sent) => panic!("all of it was sent"),
        quiet = listen => assert!(quiet),
    }
}

#[tokio::test]
async fn megabytes_that_nobody_asked_for_end_the_conversation() {
    let (link, mut guest) = greeted().await;
    let call = link.call(RequestBody::SetClock { unix_ns: 1 }, SOON);
    let flood = async {
        let data = vec![0; DATA_BYTES_MAX];
        let noise = Event::Output { stream: 99, of: Stream::Stderr, data };
        while guest.event(noise.clone()).await.is_ok() {}
    };
    let (reply, ()) = tokio::join!(call, flood);
    assert!(matches!(reply, Err(GuestError::Closed)), "{reply:?}");
    assert!(link.agent().is_closed());
}

#[tokio::test]
async fn an_agent_that_hangs_up_ends_calls_and_streams() {
    let (link, mut guest) = greeted().await;
    let (_, mut stream) = streaming(&link, &mut guest).await;
    let call = link.call(RequestBody::SetClock { unix_ns: 1 }, SOON);
    let hang_up = async {
        guest.hear().await.unwrap();
        drop(guest);
    };
    let (reply, ()) = tokio::join!(call, hang_up);
    assert!(matches!(reply, Err(GuestError::Closed)));
    assert_eq!(stream.next().await, None);
    let mut sent = 0;
    assert!(matches!(stream.input().write(b"x", &mut sent).await, Err(GuestError::Closed)));
}
