use super::*;
use crate::protocol::rpc::auth::CHALLENGE_MILLIS_MAX;
use crate::protocol::rpc::{Call, Envelope, ErrorCode, Exit, HelloResponse, Identity, Reason};

const REMOTE: RemoteId = RemoteId::from_bytes([7; 16]);

/// What the wire makes of a call at this time: the request for the session, and the answer that was given at once.
fn taken(
    wire: &mut RpcWire,
    call: &Call<'_>,
    now_millis: u64,
) -> (Option<Request<RpcWire>>, Bytes) {
    let mut out = Out::default();
    wire.accept(call.encode(&RequestId::from_number(1)));
    let request =
        wire.next_request(&Limits::default(), now_millis, &mut [], &mut out).expect("not broken");
    (request, out.take().concat().into())
}

/// The exit in an answer.
fn exit_of(mut answer: Bytes, check: impl FnOnce(Exit<'_>)) {
    let body = FrameReader::new(usize::MAX).next_body(&mut answer).expect("a frame").expect("one");
    let Ok(Envelope::Exit { exit, .. }) = Envelope::decode(&body) else { panic!("no exit") };
    check(Exit::decode(exit).expect("an exit"));
}

fn hello(wire: &mut RpcWire, now_millis: u64) -> [u8; 32] {
    let mut challenge = [0; 32];
    exit_of(taken(wire, &Call::Hello, now_millis).1, |exit| match exit {
        Exit::Success(value) => {
            challenge.copy_from_slice(HelloResponse::decode(value).expect("a hello").challenge);
        }
        Exit::Failure(_) => panic!("refused"),
    });
    challenge
}

/// Measured by the session's clock, even where nothing else happens on the connection.
#[test]
fn a_challenge_is_good_for_thirty_seconds() {
    let alice = Identity::from_root_secret(PublicKey::new("alice").expect("a key"), &[1; 32]);
    for (millis, good) in [(CHALLENGE_MILLIS_MAX - 1, true), (CHALLENGE_MILLIS_MAX, false)] {
        let mut wire =
            RpcWire::new(REMOTE, &Arc::default(), None, Proofs::new(&proofs::guesses().into()));
        let challenge = hello(&mut wire, 5);
        // Another hello does not renew it.
        assert_eq!(hello(&mut wire, 1_000), challenge);
        let signature = alice.sign(REMOTE, &challenge);
        let claim = Call::Authenticate(alice.claim(&signature));
        let (request, answer) = taken(&mut wire, &claim, 5 + millis);
        assert_eq!(matches!(request, Some(Request::Identify { .. })), good);
        if !good {
            exit_of(answer, |exit| {
                let Exit::Failure(cause) = exit else { panic!("no failure") };
                let reasons: Vec<_> = cause.reasons().collect();
                let [Reason::Fail(error)] = reasons[..] else { panic!("{reasons:?}") };
                assert_eq!(error.code, ErrorCode::Forbidden);
            });
        }
    }
}
