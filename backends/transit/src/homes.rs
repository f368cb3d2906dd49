//! What all instances with the same settings share: the connections to the server, and the application's own identity there. An
//! instance itself holds no connection, so a store may have very many.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::http::Client;
use crate::session::{Login, Session};
use crate::settings::{OwnIdentity, Server, Settings};

/// A server, and who the application is there.
pub(crate) struct Home {
    server: Server,
    identity: Option<OwnIdentity>,
    pub(crate) client: Client,
    /// `None` where every key has a role of its own.
    pub(crate) own: Option<Arc<Session>>,
}

/// The homes that are in use.
#[derive(Default)]
pub(crate) struct Homes(Mutex<Vec<Weak<Home>>>);

impl Homes {
    /// The home of these settings: the one that another instance has, or a new one.
    pub(crate) fn get(&self, settings: Settings) -> Arc<Home> {
        let mut homes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        homes.retain(|home| home.strong_count() > 0);
        let known = homes.iter().filter_map(Weak::upgrade);
        for home in known {
            if home.server == settings.server && home.identity == settings.own {
                return home;
            }
        }
        let home = Arc::new(Home {
            client: Client::new(settings.server.clone()),
            own: settings.own.clone().map(|own| Arc::new(Session::new(login(own)))),
            server: settings.server,
            identity: settings.own,
        });
        homes.push(Arc::downgrade(&home));
        home
    }
}

fn login(identity: OwnIdentity) -> Login {
    match identity {
        OwnIdentity::TokenFile(path) => Login::File { path },
        OwnIdentity::AppRole {
            role_id,
            secret_id,
            mount,
            namespace,
        } => Login::AppRole {
            role_id,
            secret_id,
            mount,
            namespace,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(token_file: &str) -> Settings {
        let text =
            format!("{{\"address\": \"https://bao.example\", \"vault_token_file\": \"{token_file}\"}}");
        Settings::parse(&text).unwrap()
    }

    #[test]
    fn instances_with_the_same_settings_share_and_others_do_not() {
        let homes = Homes::default();
        let first = homes.get(settings("/a"));
        assert!(Arc::ptr_eq(&first, &homes.get(settings("/a"))));
        assert!(!Arc::ptr_eq(&first, &homes.get(settings("/b"))));
        drop(first);
        homes.get(settings("/c"));
        assert!(homes.0.lock().unwrap().len() <= 2);
    }
}
