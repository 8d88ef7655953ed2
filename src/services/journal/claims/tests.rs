//! What a node asks for, holds and gives back.

use super::*;

fn store() -> StoreId {
    StoreId::new("s").expect("a store")
}

fn wanted(claims: &Claims) -> Vec<bool> {
    claims.take_due(false).wanted.iter().map(|(_, _, now)| *now).collect()
}

#[test]
fn a_place_is_asked_for_once_and_given_back_when_nobody_wants_it() {
    let claims = Arc::new(Claims::default());
    let claim = claims.follow(b"k", &store());
    assert!(wanted(&claims).is_empty());
    claim.want(true);
    assert_eq!(wanted(&claims), [false]);
    assert!(wanted(&claims).is_empty());
    claims.claimed(b"k", 7);
    assert_eq!(claim.seen().fence, Some(7));
    let again = claims.follow(b"k", &store());
    again.want_now();
    drop(claim);
    assert_eq!(again.seen().fence, Some(7), "somebody wants it");
    drop(again);
    let due = claims.take_due(false);
    assert_eq!(due.given.iter().map(|(_, fence)| *fence).collect::<Vec<_>>(), [7]);
    // A claim that is no longer wanted is given back when it arrives.
    claims.claimed(b"k", 8);
    assert_eq!(claims.take_due(false).given.len(), 1);
}

#[test]
fn what_others_have_is_lost_and_an_old_row_says_nothing() {
    let claims = Arc::new(Claims::default());
    let claim = claims.follow(b"k", &store());
    claim.want(true);
    claims.claimed(b"k", 7);
    let row = |fence, is_ours, asked| Row {
        key: b"k",
        store: store(),
        is_ours,
        is_free: false,
        fence,
        asked,
        position: Sequence::FIRST,
        again: 0,
    };
    claims.hear(row(6, false, false));
    assert_eq!(claim.seen().fence, Some(7));
    claims.hear(row(7, true, true));
    assert!(claim.seen().asked && claim.seen().fence == Some(7));
    claims.hear(row(8, false, false));
    assert_eq!(claim.seen().fence, None);
    claims.claimed(b"k", 9);
    claim.lost(8);
    assert_eq!(claim.seen().fence, Some(9));
    claims.lapse();
    assert!(claim.seen().fence.is_none() && !claim.is_good());
}
