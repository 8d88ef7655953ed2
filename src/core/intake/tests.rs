use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;

const SMALL: usize = 10;
/// The most that one connection may hold.
const MOST: usize = 1_000;
/// What is read at once.
const READ: usize = 50;
const TERMS: Terms =
    Terms { open: 400, open_to_strangers: 100, rate_min: 10, grace_millis: 10_000 };

fn held(bytes: usize) -> Held {
    Held { bytes, received: bytes, waits_for_client: true }
}

fn accepted(intake: &mut Intake) -> Number {
    let number = intake.enter(SMALL, Place::default());
    intake.accept(number, 0, SMALL);
    number
}

#[test]
fn a_lone_stranger_may_send_as_much_as_there_is() {
    let mut intake = Intake::new(TERMS);
    let alone = intake.enter(SMALL, Place::default());
    for bytes in (0..MOST).step_by(READ) {
        assert!(intake.may_read(alone, 0), "{bytes}");
        intake.hold(alone, 0, Held { bytes, received: READ, waits_for_client: false });
    }
    intake.hold(alone, 0, held(0));
    assert_eq!((intake.level(), intake.waiting()), (0, 0));
}

#[test]
fn of_two_halves_one_is_made_whole_first() {
    let mut intake = Intake::new(TERMS);
    let [one, two] = [(); 2].map(|()| intake.enter(SMALL, Place::default()));
    intake.hold(one, 0, held(500));
    intake.hold(two, 1, held(500));
    assert!(intake.may_read(one, 2));
    assert!(!intake.may_read(two, 2));
    // Nobody is blamed for what the server does not read.
    assert_eq!(intake.round(5_000), []);
    intake.hold(one, 5_000, held(0));
    assert_eq!(intake.take_wake().last(), Some(&two));
    assert!(intake.may_read(two, 5_000));
}

#[test]
fn what_is_small_is_read_while_large_input_waits() {
    let mut intake = Intake::new(TERMS);
    let large = [(); 3].map(|()| intake.enter(SMALL, Place::default()));
    for number in large {
        intake.hold(number, 0, held(120));
    }
    assert_eq!(large.map(|number| intake.may_read(number, 0)), [true, false, false]);
    let (stranger, known) = (intake.enter(SMALL, Place::default()), accepted(&mut intake));
    intake.hold(stranger, 1, held(9));
    intake.hold(known, 1, held(9));
    assert!(intake.may_read(stranger, 1) && intake.may_read(known, 1));
}

/// Slow headers of 1,900 strangers, each of them small, blocked every accepted connection until they were over.
#[test]
fn what_many_strangers_hold_that_is_small_keeps_nobody_else_waiting() {
    let mut intake = Intake::new(TERMS);
    for _ in 0..100 {
        let stranger = intake.enter(SMALL, Place::default());
        assert!(intake.may_read(stranger, 0));
        intake.hold(stranger, 0, held(SMALL));
    }
    assert!(intake.level() > TERMS.open);
    // Somebody has the turn.
    let large = accepted(&mut intake);
    intake.hold(large, 1, held(200));
    assert!(intake.may_read(large, 1));
    let known = accepted(&mut intake);
    intake.hold(known, 1, held(SMALL));
    assert!(intake.may_read(known, 1));
    // Other accepted connections can send, as before.
    for _ in 0..TERMS.open / SMALL {
        let number = accepted(&mut intake);
        intake.hold(number, 1, held(SMALL));
    }
    assert!(!intake.may_read(known, 1));
}

#[test]
fn who_is_accepted_goes_first_and_a_stranger_makes_way() {
    let mut intake = Intake::new(TERMS);
    let strangers = [(); 3].map(|()| intake.enter(SMALL, Place::default()));
    for number in strangers {
        intake.hold(number, 0, held(200));
        intake.may_read(number, 0);
        // It trickles as fast as strangers have to while others wait.
        intake.hold(number, 0, Held { bytes: 200, received: 100_000, waits_for_client: true });
    }
    let known = accepted(&mut intake);
    intake.hold(known, 1, held(200));
    assert!(!intake.may_read(known, 1));
    let trickles = Held { bytes: 200, received: 1, waits_for_client: true };
    for now in [1_900, 3_800] {
        assert_eq!(intake.round(now), []);
        intake.hold(strangers[0], now, trickles);
    }
    assert_eq!(intake.round(4_999), []);
    assert_eq!(intake.round(5_000), [(strangers[0], Overdue::Turn)]);
    intake.leave(strangers[0], 5_000);
    assert!(intake.may_read(known, 5_000));
    assert!(!intake.may_read(strangers[1], 5_000));
}

/// Sixty halves of messages of one address, silent, and nobody accepted who would end their turns.
#[test]
fn a_newcomer_does_not_wait_behind_all_halves_of_another_address() {
    let mut intake = Intake::new(TERMS);
    let place = |last: u8| Place::of(Some([127, 0, 0, last].into()));
    let mut halves = Vec::new();
    for now in 0..60 {
        let half = intake.enter(SMALL, place(5));
        intake.hold(half, now, held(50));
        intake.may_read(half, now);
        intake.hold(half, now, Held { bytes: 50, received: 1, waits_for_client: true });
        halves.push(half);
    }
    let newcomer = intake.enter(SMALL, place(1));
    intake.hold(newcomer, 60, held(20));
    assert!(!intake.may_read(newcomer, 60));
    let mut now = 60;
    while !intake.may_read(newcomer, now) {
        now += 500;
        assert!(now < 6_000, "it waits behind all of them");
        for (number, _) in intake.round(now) {
            assert!(halves.contains(&number));
            intake.leave(number, now);
        }
    }
    // At one address, who has sent little goes before who has sent much.
    intake.leave(newcomer, now);
    let large = intake.enter(SMALL, place(1));
    intake.hold(large, now, held(100_000));
    assert!(!intake.may_read(large, now + 1));
    let little = intake.enter(SMALL, place(1));
    intake.hold(little, now + 2, held(20));
    assert!(!intake.may_read(little, now + 2));
    let mut turns = 0;
    while !intake.may_read(little, now) {
        assert!(!intake.may_read(large, now), "it went first");
        (now, turns) = (now + 500, turns + 1);
        assert!(turns < 30);
        for (number, _) in intake.round(now) {
            intake.leave(number, now);
        }
    }
}

#[test]
fn a_connection_has_to_send_what_it_began() {
    let mut intake = Intake::new(TERMS);
    let slow = accepted(&mut intake);
    intake.hold(slow, 0, held(1));
    assert_eq!(intake.round(9_999), []);
    intake.hold(slow, 9_999, Held { bytes: 100, received: 99, waits_for_client: true });
    // 10 bytes a second are enough, and then they have to come again.
    assert_eq!(intake.round(10_000), []);
    assert_eq!(intake.round(19_999), []);
    assert_eq!(intake.round(20_000), [(slow, Overdue::Slow)]);
    // A connection that has begun nothing may be silent.
    intake.hold(slow, 20_001, held(0));
    assert_eq!(intake.round(90_000), []);
}

#[test]
fn while_others_wait_large_input_has_to_come_faster() {
    let mut intake = Intake::new(TERMS);
    let [one, two] = [(); 2].map(|()| accepted(&mut intake));
    intake.hold(one, 0, held(350));
    intake.hold(two, 0, held(350));
    assert!(intake.may_read(one, 0) && !intake.may_read(two, 0));
    // Fast enough for this window, because nobody was waiting when it began.
    intake.hold(one, 9_999, Held { bytes: 450, received: 100, waits_for_client: true });
    assert_eq!(intake.round(10_000), []);
    intake.hold(one, 19_999, Held { bytes: 550, received: 100, waits_for_client: true });
    assert_eq!(intake.round(20_000), [(one, Overdue::Slow)]);
}

#[test]
fn a_turn_that_is_not_taken_is_passed_on() {
    let mut intake = Intake::new(TERMS);
    let all = [(); 3].map(|()| accepted(&mut intake));
    for number in all {
        intake.hold(number, 0, held(300));
    }
    assert_eq!(all.map(|number| intake.may_read(number, 0)), [true, false, false]);
    intake.take_wake();
    intake.leave(all[0], 1);
    assert_eq!(intake.take_wake(), [all[1]]);
    // Its client does not read, so it does not run.
    intake.round(2_000);
    assert!(intake.take_wake().contains(&all[2]));
    assert!(intake.may_read(all[2], 2_000));
    assert!(!intake.may_read(all[1], 2_000));
}

/// How long clients begin new messages.
const END: u64 = 600_000;

/// How the other end of a connection behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Nature {
    /// Sends whole messages as fast as they are read.
    Honest,
    /// Sends a part of a message, and then nothing.
    Silent,
    /// Sends just as fast as it has to while nobody waits.
    Trickles,
}

struct Client {
    nature: Nature,
    number: Number,
    wanted: usize,
    held: usize,
    denied: bool,
    sent_at: u64,
    messages: u32,
    gone: bool,
}

impl Client {
    fn new(intake: &mut Intake, nature: Nature, random: &mut TestRng) -> Self {
        let number = intake.enter(SMALL, Place::default());
        if random.random_range(0..3) == 0 {
            intake.accept(number, 0, SMALL);
        }
        Self {
            nature,
            number,
            wanted: 1,
            held: 0,
            denied: false,
            sent_at: 0,
            messages: 0,
            gone: false,
        }
    }

    /// What the server does for it when it runs. From `END` on it leaves instead of beginning another message.
    fn run(&mut self, intake: &mut Intake, now: u64, random: &mut TestRng) {
        self.denied = false;
        loop {
            if self.held >= self.wanted {
                self.held = 0;
                self.messages += 1;
                self.wanted = random.random_range(1..MOST);
                intake.hold(self.number, now, Held::default());
            }
            if now >= END && self.held == 0 {
                self.gone = true;
                return intake.leave(self.number, now);
            }
            if !intake.may_read(self.number, now) {
                self.denied = true;
                return;
            }
            let sent = self.sends(now, random);
            self.sent_at = now;
            let bytes = sent.min(self.wanted - self.held).min(READ);
            self.held += bytes;
            let waits_for_client = bytes == 0;
            let held = Held { bytes: self.held, received: bytes, waits_for_client };
            intake.hold(self.number, now, held);
            if waits_for_client {
                return;
            }
        }
    }

    fn sends(&self, now: u64, random: &mut TestRng) -> usize {
        let share = if self.held * 2 < self.wanted { READ } else { 0 };
        match self.nature {
            Nature::Honest => READ * random.random_range(0..3),
            Nature::Trickles if now >= self.sent_at + 1_000 => 12,
            Nature::Trickles | Nature::Silent => share,
        }
    }
}

/// However many connections hold halves of messages: what is held is bounded, everyone who keeps sending gets messages
/// through, none of those is overdue, and in the end nobody waits.
#[test]
fn whoever_sends_on_gets_through() {
    for seed in 0..20_u8 {
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut intake = Intake::new(TERMS);
        let natures = [Nature::Honest, Nature::Silent, Nature::Trickles];
        let mut clients: Vec<_> = (0..30)
            .map(|at| Client::new(&mut intake, natures[at % natures.len()], &mut random))
            .collect();
        // Small input of strangers is always read.
        let most = TERMS.open + MOST + READ + clients.len() * (SMALL + READ);
        for now in (0..2 * END).step_by(100) {
            let woken = intake.take_wake();
            for client in clients.iter_mut().filter(|client| !client.gone) {
                let runs = if client.denied { woken.contains(&client.number) } else { true };
                if runs && random.random_range(0..4) > 0 {
                    client.run(&mut intake, now, &mut random);
                } else if runs {
                    client.denied = false;
                }
                assert!(intake.level() <= most, "{seed}: {}", intake.level());
            }
            for (number, why) in if now % 1_000 == 0 { intake.round(now) } else { Vec::new() } {
                let client = clients.iter_mut().find(|client| client.number == number);
                let client = client.expect("one of them");
                assert!(client.nature != Nature::Honest || why == Overdue::Turn, "{seed}");
                client.gone |= client.nature != Nature::Honest;
                if client.gone {
                    intake.leave(number, now);
                }
            }
        }
        for client in &clients {
            let Client { nature, gone, messages, .. } = client;
            assert!(*nature != Nature::Silent || *gone, "{seed}");
            assert!(*nature != Nature::Honest || *messages > 1, "{seed}: {messages}");
        }
        assert_eq!((intake.level(), intake.waiting()), (0, 0), "{seed}");
    }
}
