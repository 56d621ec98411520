//! The side of a process that attached to the one which holds the session.

use std::{collections::BTreeMap, time::Duration};

use tokio::net::UnixStream;

use super::{
    Left, Member, Role, Wanted,
    session::{Launch, SessionState},
    wire::{Ask, Line, PROTOCOL, Tell, Want},
};

/// How long the holder may take for its first line before it counts as stuck.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Who waits for an answer.
enum Asked {
    /// A command of this process, with what it wanted.
    Command(Wanted),
    /// Nobody: this had been granted before and was said again.
    Again(Want),
}

impl<L: Launch> Member<L> {
    pub(super) async fn attach(&mut self, stream: UnixStream) -> Left {
        let stop = self.stop.clone();
        let mut line = Line::new(stream);
        let hello = tokio::select! {
            () = stop.cancelled() => return Left::Stopped,
            hello = tokio::time::timeout(HELLO_TIMEOUT, line.next::<Tell>()) => hello,
        };
        match hello {
            Ok(Some(Tell::Hello { protocol: PROTOCOL })) => {}
            Ok(Some(_)) => {
                self.say(SessionState::Refused {
                    code: "agent_version".to_owned(),
                    message: "another version of connect holds this machine's session: end it first"
                        .to_owned(),
                });
                stop.cancelled().await;
                return Left::Stopped;
            }
            Ok(None) => return Left::Again,
            Err(_) => {
                self.say(SessionState::Connecting {
                    attempt: 0,
                    last_error: Some("the connect process that holds the session does not answer".to_owned()),
                });
                return Left::Again;
            }
        }
        self.view.send_modify(|view| {
            view.role = Role::Attached;
            view.lost.clear();
        });
        let mut asked = BTreeMap::new();
        let left = self.converse(&mut line, &mut asked).await;
        // Nobody answers these any more: the next seat will.
        for asked in asked.into_values() {
            if let Asked::Command(wanted) = asked {
                self.backlog.push_back(wanted);
            }
        }
        left
    }

    async fn converse(&mut self, line: &mut Line<UnixStream>, asked: &mut BTreeMap<u64, Asked>) -> Left {
        let stop = self.stop.clone();
        let mut next_id = 0;
        for want in self.granted.clone() {
            next_id += 1;
            asked.insert(next_id, Asked::Again(want.clone()));
            if !line.send(&Ask { id: next_id, want }).await {
                return Left::Again;
            }
        }
        loop {
            while let Some(wanted) = self.backlog.pop_front() {
                next_id += 1;
                let ask = Ask { id: next_id, want: wanted.want.clone() };
                asked.insert(next_id, Asked::Command(wanted));
                if !line.send(&ask).await {
                    return Left::Again;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Left::Stopped,
                wanted = self.waiting.recv() => match wanted {
                    Some(wanted) => self.backlog.push_back(wanted),
                    None => return Left::Stopped,
                },
                told = line.next::<Tell>() => match told {
                    None | Some(Tell::Hello { .. }) => return Left::Again,
                    Some(Tell::State(state)) => self.say(state),
                    Some(Tell::News(news)) => self.learn(news),
                    Some(Tell::Answer { id, granted }) => self.answered(asked.remove(&id), granted),
                },
            }
        }
    }

    fn answered(&mut self, asked: Option<Asked>, granted: super::Granted) {
        match asked {
            None => {}
            Some(Asked::Command(Wanted { want, answer })) => {
                if let Ok(number) = granted {
                    self.granted.push(match want {
                        Want::Reach { tunnel, service, carries, .. } => {
                            Want::Reach { tunnel, service, carries, port: number }
                        }
                        want @ (Want::Allow(_) | Want::CheckCertificate { .. } | Want::Watch { .. }) => want,
                    });
                }
                let _ = answer.send(granted);
            }
            Some(Asked::Again(want)) => {
                if let (Err(error), Want::Reach { port, .. }) = (granted, want) {
                    self.view.send_modify(|view| view.lost.push(format!("port {port}: {error}")));
                }
            }
        }
    }
}
