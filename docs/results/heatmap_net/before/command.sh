pypose-ops train heatmap_net --preset efficientnet_lite0 --recipe --precision 32-true \
  --set 'input_size=[128,128]' --backbone efficientnet-lite0-57934424.pth \
  --freeze backbone.stem --freeze backbone.blocks.0 --freeze backbone.blocks.1 --freeze backbone.blocks.2 \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.5 --epochs 10 --last-epochs 1 --out heatmap_net/before
