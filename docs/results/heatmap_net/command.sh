pypose-ops train heatmap_net --preset efficientnet_lite0 --recipe --precision 32-true \
  --weights heatmap_net/before/weights.safetensors --lr 5e-4 \
  --freeze backbone.stem --freeze backbone.blocks.0 --freeze backbone.blocks.1 --freeze backbone.blocks.2 \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.15 --epochs 8 --last-epochs 4 --out heatmap_net
