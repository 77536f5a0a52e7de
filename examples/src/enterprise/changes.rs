//! What somebody else changes in the database: prices, by hand or by another program. A trigger
//! notifies, and every server takes the changed quote out of its caches.

use std::pin::pin;
use std::time::Duration;

use escala_pool::PoolError;
use escala_pool::postgres::{ListenEvent, Listener};

use super::app::App;
use super::store::{Node, PRICES};

/// The pause before a server that cannot be listened to is asked again, or another one is the primary.
const AGAIN: Duration = Duration::from_secs(1);

/// Removes what changed until `stop`. An embedded file has no other writers.
pub(super) async fn follow(app: App, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    loop {
        let heard = async {
            match app.primary() {
                Ok(Node::Postgres(server)) => {
                    let listener = server.pool().listen([PRICES]).await?;
                    hear(&app, listener).await;
                }
                Ok(Node::Sqlite(_)) => std::future::pending().await,
                // There will be one.
                Err(_) => {}
            }
            Ok::<_, PoolError>(())
        };
        tokio::select! {
            () = &mut stop => return,
            // A standby hears nothing: whoever is the primary by then is listened to.
            () = until_another(&app, app.db.primary()) => continue,
            result = heard => if let Err(error) = result {
                tracing::warn!(error = &error as &dyn std::error::Error, "no news of prices");
            },
        }
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Waits until another node is known to be the primary than the one that was.
async fn until_another(app: &App, was: Option<String>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        let primary = app.db.primary();
        if primary.is_some() && primary != was {
            return;
        }
    }
}

async fn hear(app: &App, mut listener: Listener) {
    // What changed before is not told.
    app.remove_tag("market").await;
    while let Some(event) = listener.next().await {
        match event {
            ListenEvent::Notification(changed) => {
                app.remove_tag(&format!("quote:{}", changed.payload())).await;
                app.remove_tag("catalogue").await;
            }
            // Some were missed, and nobody knows which.
            _ => _ = app.remove_tag("market").await,
        }
    }
}
