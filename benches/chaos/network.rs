//! The network between Redis and everybody else, which can be cut while both sides live.

use std::io;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A running network. Connections go to Redis as long as it is not cut.
pub(crate) struct Network {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Network {
    /// Leads a port of its own to the server on this port of this machine.
    pub(crate) async fn to(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let network = Self { port: listener.local_addr()?.port(), cut: watch::Sender::new(false) };
        let cut = network.cut.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, cut.clone()));
            }
        });
        Ok(network)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub(crate) fn mend(&self) {
        self.cut.send_replace(false);
    }
}

/// Passes bytes until one side closes the connection, or the network is cut.
async fn pass(mut client: TcpStream, server: u16, mut cut: watch::Receiver<bool>) {
    let passing = async {
        // A server that is away shows as a closed connection.
        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        copy_bidirectional(&mut client, &mut server).await
    };
    tokio::select! {
        _ = passing => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}
